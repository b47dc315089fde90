"""The metrics of a job: one `name=value` line of log each, and the definitions by which the platform finds them.

What is counted class by class is in classification.py, which needs numpy.
"""

import math
from collections.abc import Sequence

NAMES = (
    "epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "valid_macro_f1",
    "images_per_second", "best_epoch", "test_accuracy",
)  # fmt: skip
Z = 1.959964  # of a normal distribution 95 % lies within so many standard deviations
PRECISE = 2000  # images from which on tenths of a percentage point mean something
NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|nan|inf)"

# For Estimator(metric_definitions=...): at most 40, each Regex at most 500 characters, searched in every log line.
DEFINITIONS = [{"Name": name, "Regex": rf"(?:^|\s){name}={NUMBER}"} for name in NAMES]


def line(name: str, value: float) -> str:
    """Return the log line of one metric. Raises KeyError for a name without a definition."""
    if name not in NAMES:
        raise KeyError(f"metric {name!r} has no definition in {__name__}.NAMES")
    return f"{name}={value:.6g}"


def interval(share: float, images: int) -> tuple[float, float]:
    """Return the Wilson interval (95 %) of a share that was measured on so many images: low and high, from 0 to 1.

    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval
    """
    if images < 1:
        return 0.0, 1.0
    shrink = 1 + Z**2 / images
    middle = (share + Z**2 / (2 * images)) / shrink
    reach = Z / shrink * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def interval_words(share: float, images: int) -> str:
    """Return the interval of an accuracy in words: `61 to 83 %`."""
    low, high = (f"{100 * end:.{0 if images < PRECISE else 1}f}" for end in interval(share, images))
    return f"{low} to {high} %"


def with_interval(share: float, images: int) -> str:
    """Return an accuracy in words: `73.3 % of 60 images (61 to 83 %)`."""
    return f"{100 * share:.1f} % of {images} image{'s' * (images != 1)} ({interval_words(share, images)})"


def no_better_than_chance(share: float, class_counts: Sequence[int]) -> str:
    """Return a sentence if an accuracy is not above that of always naming the largest class; otherwise empty.

    `class_counts` are the images of each class that it was measured on.
    """
    images, largest = sum(class_counts), max(class_counts, default=0)
    if not images or interval(share, images)[0] > largest / images:
        return ""
    verdict = "NOT SHOWN TO BE BETTER THAN CHANCE" if share > largest / images else "NOT BETTER THAN CHANCE"
    return (
        f"{verdict}: {with_interval(share, images)} are predicted correctly, and always naming the most frequent class"
        f" gives {100 * largest / images:.1f} %: check the labels, lr and epochs, or test on more images"
    )
