"""Checks hyperparameters as training will, and names the weights; a process of its own, as it imports torch.

Prints one JSON object: {"error": TEXT} or {"url": where torchvision has these weights, or null}.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from local_test.errors import LocalError


def ask(python: Path, hyperparameters: dict[str, str], environment: dict[str, str]) -> str | None:
    """The URL of the weights that training would fetch, None where it would fetch none. Raises LocalError."""
    words = [word for key, value in hyperparameters.items() for word in (f"--{key}", value)]
    done = subprocess.run(
        [python, "-P", "-m", "local_test.check", *words], env=environment, capture_output=True, text=True
    )
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise LocalError(f"the environment is broken ({last}): remove .venv and call this again") from None
    if "error" in answer:
        raise LocalError(answer["error"], 2)
    url: str | None = answer["url"]
    return url


def main(arguments: list[str]) -> None:
    from container_train.errors import TrainError
    from container_train.hyperparameters import parse

    try:
        settings = parse(arguments)
    except TrainError as error:
        print(json.dumps({"error": str(error)}))
        return
    from torchvision.models import get_model_weights

    url = None
    if settings.weights.lower() != "none":
        try:
            url = get_model_weights(settings.arch)[settings.weights].url
        except KeyError:
            url = None  # training says which names there are
    print(json.dumps({"url": url}))


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore"
    main(sys.argv[1:])
