"""`serve_local.sh`: serve a model.tar.gz, or a model folder, until Ctrl-C."""

import webbrowser
from pathlib import Path

from container_serve import scratch
from local_test import engine, options, pack, server
from local_test.errors import LocalError, Parser

PORT = 8080


def serve(arguments: list[str]) -> None:
    parser = Parser(prog="serve_local.sh", description=__doc__)
    options.add_engine(parser)
    usual, text = options.OUT / "model" / "model.tar.gz", "what to serve (default: that in local_test/out)"
    parser.add_argument("--model", default=str(usual), metavar="TAR|DIR", help=text)
    parser.add_argument("--port", type=options.port, default=PORT, metavar="N", help=f"on 127.0.0.1 (default {PORT})")
    parser.add_argument("--page", action="store_true", help="with a page to try the model: drop a photo on it")
    parser.add_argument("--open", action="store_true", help="open that page in a browser (implies --page)")
    flags = parser.parse_args(arguments)
    serve_model(flags.engine, Path(flags.model).absolute(), flags.port, page=flags.page or flags.open, show=flags.open)


def _check_trained(archive: Path) -> None:
    """Raise LocalError for a model whose training runs or was killed, if there is one of the run before it."""
    out = options.OUT.absolute()
    if archive.is_relative_to(out) and not archive.exists():
        before = out.with_name(f"{out.name}.old") / archive.relative_to(out)
        if before.exists():
            raise LocalError(f"{archive}: its training runs, or was killed; the run before has --model {before}", 2)


def serve_model(wanted: str, archive: Path, port: int, *, page: bool, show: bool) -> None:
    """Serve a model.tar.gz, or a model folder, until Ctrl-C; `show` opens its page in a browser. Raises LocalError."""
    model, url = archive, f"http://127.0.0.1:{port}"
    server.check_port(port)
    with scratch.run_directory() as work:
        if not archive.is_dir():
            _check_trained(archive)
            model = work / "model"
            pack.unpack(archive, model)
        chosen, why = engine.choose(wanted, work)
        print(f"engine: {chosen.name}, because {why}", flush=True)
        chosen.find_images("serve")
        # Its log, one line per request, is for this terminal; errors need not repeat it.
        with server.serving(chosen, model, port, work / "serve.log", echo=True, page=page) as running:
            print(
                f"serving {archive} on {url}; in another terminal:\n  local_test/predict.sh IMAGE --url {url}\n"
                + (f"try it in a browser: {url}/\n" if page else "")
                + "Ctrl-C ends it",
                flush=True,
            )
            if show and not webbrowser.open(f"{url}/"):
                print("--open: no browser was found here; open the address above yourself", flush=True)
            code = running.wait()
            raise LocalError(f"the server ended with exit code {code}", code or 1)
