"""The time of one image in the server at each image size: `bench_resolution.py [--arch resnet50] [--sides 224 448]`.

Decoding, preprocessing and the int8 graph of a random network, through the serving code, on one thread, the sizes
taking turns. Times are of processor time, which other work on the machine disturbs least.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_serve.artifact import Artifact
from container_serve.predictor import Predictor
from container_serve.preprocess import preprocess
from container_train.data.files import Files, Split
from container_train.export import exporter, quantize
from container_train.model import builder
from tests.bench.arguments import new_file, whole
from tests.bench.servers import SMALL, pictures

CLASSES = tuple(f"class {i}" for i in range(120))


def artifact(arch: str, side: int, folder: Path) -> Artifact:
    network = builder.build(
        arch, len(CLASSES), weights="none", weights_file=None, freeze_until="backbone", image_size=side
    )
    made = exporter.export(
        network.model, folder, arch=arch, classes=CLASSES, preprocessing=network.preprocessing, details={}
    )
    files = Files(folder.parent, [f"{index}.jpg" for index, _ in enumerate(pictures()[SMALL])])
    for path, body in zip(files, pictures()[SMALL], strict=True):
        path.write_bytes(body)
    split = Split("train", files, np.arange(len(files)))
    return quantize.choose(made, {"valid": split}, precision="int8", train=split).artifact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet50", help="(default: %(default)s)")
    parser.add_argument("--sides", type=whole, nargs="+", default=[224, 320, 384, 448], metavar="N")
    parser.add_argument("--turns", type=whole, default=10, help="(default: %(default)s)")
    parser.add_argument("--out", type=new_file, help="file for the figures, as JSON")
    options = parser.parse_args()
    bodies = pictures()[SMALL]
    command = f"python tests/bench/bench_resolution.py --arch {options.arch} --turns {options.turns}"
    values: dict[tuple[int, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-resolution-") as name:
        made = {side: artifact(options.arch, side, Path(name) / str(side)) for side in options.sides}
        predictors = {side: Predictor(found) for side, found in made.items()}
        for predictor in predictors.values():
            predictor.warm_up()
        for _ in range(options.turns):
            for side, predictor in predictors.items():
                begun = time.process_time()
                inputs = [preprocess(body, made[side].preprocessing)[None] for body in bodies]
                prepared = time.process_time()
                for x in inputs:
                    predictor.probabilities(x)
                ended = time.process_time()
                values[side, "preprocessing"].append(1e3 * (prepared - begun) / len(bodies))
                values[side, "int8 graph"].append(1e3 * (ended - prepared) / len(bodies))
    rows: list[dict[str, Any]] = [
        {
            "name": f"{options.arch}, {side} pixels: {what}", "goal": "", "measured": round(statistics.median(each), 2),
            "unit": "ms", "spread": [round(min(each), 2), round(max(each), 2)], "repetitions": len(each),
            "command": command,
        }
        for (side, what), each in values.items()
    ]  # fmt: skip
    for row in rows:
        print(f"{row['name']:45} {row['measured']:8.2f} ms ({row['spread'][0]:.2f} to {row['spread'][1]:.2f})")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
