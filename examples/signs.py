"""Small images of traffic signs for the notebook, drawn here: nothing to download, and free to pass on."""

import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

SIDE = 128  # pixels
# Corners, degrees of rotation, colour of the border and of the face.
SIGNS = {
    "parking": (4, 45, "#ffffff", "#2456a6"),
    "priority": (4, 0, "#ffffff", "#e8b923"),
    "stop": (8, 22.5, "#ffffff", "#b3202a"),
    "warning": (3, 30, "#b3202a", "#ffffff"),
    "yield": (3, 90, "#b3202a", "#ffffff"),
}
IMAGES = {"train": 40, "valid": 10, "test": 20}  # per class


def draw(name: str, dice: random.Random) -> Image.Image:
    """A sign somewhere in front of a road's greys and greens, of another size, tilt and light each time."""
    corners, turn, border, face = SIGNS[name]
    image = Image.new("RGB", (SIDE, SIDE), _colour(dice))
    canvas = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = dice.randint(-40, SIDE), dice.randint(-40, SIDE)
        canvas.rectangle((left, top, left + dice.randint(10, 70), top + dice.randint(10, 70)), _colour(dice))
    size, tilt = dice.uniform(22, 48), turn + dice.uniform(-12, 12)
    centre = (dice.uniform(size, SIDE - size), dice.uniform(size, SIDE - size))
    for radius, colour in ((size, border), (0.78 * size, face)):
        angles = [math.radians(tilt + 360 * corner / corners) for corner in range(corners)]
        canvas.polygon([(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles], colour)
    light = dice.uniform(0.5, 1)
    return image.point(lambda value: int(value * light))


def write(folder: Path, seed: int = 0) -> None:
    """Write folder/SPLIT/CLASS/NNN.png; the same seed gives the same images."""
    dice = random.Random(seed)
    for split, count in IMAGES.items():
        for name in SIGNS:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw(name, dice).save(folder / split / name / f"{number:03d}.png")


def _colour(dice: random.Random) -> tuple[int, int, int]:
    grey = dice.randint(70, 190)
    return grey, min(255, grey + dice.randint(0, 40)), grey
