"""Figures in words: with their units, as short as they can be without saying something else."""

import math
import time


def duration(seconds: float) -> str:
    """12 ms, 3.4 s, 4 min 10 s, 1 h 02 min, 2 d 3 h."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms" if seconds > 0 else "0 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {second:02} s"
    hours, minute = divmod(round(seconds / 60), 60)
    return f"{hours} h {minute:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def share(part: float) -> str:
    """A fraction of 1 as a percentage."""
    return f"{100 * part:.1f} %" if math.isfinite(part) else "unknown"


def size(number_of_bytes: float) -> str:
    if not math.isfinite(number_of_bytes):
        return "unknown"
    power = min(4, int(math.log(max(abs(number_of_bytes), 1), 1000)))
    return f"{number_of_bytes / 1000**power:.3g} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


def figure(value: float) -> str:
    """Any number, to four digits."""
    return f"{value:.4g}" if math.isfinite(value) else ("unknown" if math.isnan(value) else "infinite")


def rate(value: float) -> str:
    """To three digits; what rounds to nothing is nothing."""
    return f"{value:.3g}" if value >= 0.05 else "0"


def count(number: float, one: str) -> str:
    """1 epoch, 2 epochs, 2 classes, 100 000 steps."""
    if not math.isfinite(number):
        return "unknown"
    several = one + ("es" if one.endswith("s") else "s")
    return f"{int(number):,}".replace(",", "\u202f") + " " + (one if number == 1 else several)


def clock_time(seconds: float) -> str:
    """Of seconds since 1970; in UTC, for who reads a report may be elsewhere."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "unknown"


def title(name: str) -> str:
    """vanishing_gradient -> Vanishing gradient; the short names of the field stay as they are written."""
    known = {"cpu": "CPU", "gpu": "GPU", "io": "I/O", "relu": "ReLU"}
    text = " ".join(known.get(word, word) for word in name.replace("-", "_").split("_"))
    return text[:1].upper() + text[1:]
