"""`serve_local.sh`: serve a model.tar.gz, or a model folder, until Ctrl-C."""

import tempfile
from pathlib import Path

from local_test import engine, options, pack, server
from local_test.errors import LocalError, Parser

PORT = 8080


def serve(arguments: list[str]) -> None:
    parser = Parser(prog="serve_local.sh", description=__doc__)
    options.add_engine(parser)
    parser.add_argument(
        "--model",
        default=str(options.OUT / "model" / "model.tar.gz"),
        metavar="TAR|DIR",
        help="what to serve (default: what run.sh or train_local.sh has left in local_test/out)",
    )
    parser.add_argument("--port", type=options.port, default=PORT, metavar="N", help=f"on 127.0.0.1 (default {PORT})")
    flags = parser.parse_args(arguments)
    if not flags.model:  # Path("") would be the folder this is called in
        raise LocalError("--model is empty: give a model.tar.gz, or a model folder", 2)
    model = archive = Path(flags.model).absolute()
    server.check_port(flags.port)
    with tempfile.TemporaryDirectory(prefix="serve_local-") as folder:
        work = Path(folder)
        if not archive.is_dir():
            model = work / "model"
            pack.unpack(archive, model)
        chosen, why = engine.choose(flags.engine, work)
        print(f"engine: {chosen.name}, because {why}", flush=True)
        chosen.find_images("serve")
        # Its log, one line per request, is for this terminal; errors need not repeat it.
        with server.serving(chosen, model, flags.port, work / "serve.log", echo=True) as running:
            print(
                f"serving {archive} on http://127.0.0.1:{flags.port}; in another terminal:\n"
                f"  local_test/predict.sh IMAGE --url http://127.0.0.1:{flags.port}\nCtrl-C ends it",
                flush=True,
            )
            code = running.wait()
            raise LocalError(f"the server ended with exit code {code}", code or 1)
