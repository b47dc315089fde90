"""`serve_local.sh`: serve a model.tar.gz, or a model folder, until Ctrl-C."""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from container_serve import __version__
from local_test import engine, options, pack, run
from local_test.errors import LocalError

PORT = 8080


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LocalError(f"{message}; see {self.prog} --help", 2)


def serve(arguments: list[str]) -> None:
    parser = _Parser(prog="serve_local.sh", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    options.add_engine(parser)
    parser.add_argument(
        "--model",
        default=str(options.OUT / "model" / "model.tar.gz"),
        metavar="TAR|DIR",
        help="what to serve (default: what run.sh or train_local.sh has left in local_test/out)",
    )
    parser.add_argument("--port", metavar="N", help=f"on 127.0.0.1 (default {PORT})")
    flags = parser.parse_args(arguments)
    port = options.checked_port(flags.port) or PORT
    if not flags.model:  # Path("") would be the folder this is called in
        raise LocalError("--model is empty: give a model.tar.gz, or a model folder", 2)
    archive = Path(flags.model).absolute()
    run.check_port(port)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serve_local-")))
        model = archive
        if not archive.is_dir():
            model = work / "model"
            pack.unpack(archive, model)
        chosen, why = engine.choose(flags.engine, work)
        print(f"engine: {chosen.name}, because {why}", flush=True)
        if isinstance(chosen, engine.DockerEngine):
            chosen.find_images(("serve",))
        # Its log, a line a request, is for this terminal; errors need not repeat it.
        server = run.start_server(chosen, model, port, work / "serve.log", echo=True)
        stack.callback(server.stop)
        run.wait_until_ready(server, port)
        print(
            f"serving {archive} on http://127.0.0.1:{port}; in another terminal:\n"
            f"  local_test/predict.sh PICTURE --url http://127.0.0.1:{port}\nCtrl-C ends it",
            flush=True,
        )
        code = server.child.wait()
        raise LocalError(f"the server ended with exit code {code}", code or 1)


if __name__ == "__main__":
    sys.exit(run.guarded("serve_local.sh", lambda: serve(sys.argv[1:])))
