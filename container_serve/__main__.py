"""python -m container_serve [--model-dir DIR] [--port N]: serve a trained model over HTTP until SIGTERM or Ctrl-C."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from container_serve import __version__, log
from container_serve.errors import ServeError
from container_serve.settings import MAX_PORT, Settings
from container_serve.supervisor.server import serve


def main(arguments: list[str] | None = None) -> int:
    """0 after a stop that was asked for; 1 with one line on standard error otherwise."""
    parser = argparse.ArgumentParser(prog="container_serve", description="Serve a trained model over HTTP.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--model-dir", type=Path, help="folder with model.json (default: /opt/ml/model)")
    parser.add_argument("--port", type=_port, help="default: SAGEMAKER_BIND_TO_PORT, or 8080")
    parser.add_argument(
        "--page",
        action="store_true",
        help="try the model at GET /; also /info, /metrics, /openapi.json (BYOC_PAGE=true)",
    )
    options = parser.parse_args(arguments)
    try:
        settings = Settings.read(os.environ)
        settings = replace(settings, **{name: value for name, value in vars(options).items() if value})
        log.configure(settings.log_level)
        serve(settings, os.environ)
    except ServeError as error:
        sys.stdout.flush()
        print(f"container_serve: {error}", file=sys.stderr)
        return 1
    return 0


def _port(text: str) -> int:
    # multi-model-server takes no higher port
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1 to {MAX_PORT}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
