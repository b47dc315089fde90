"""run.sh, train_local.sh and serve_local.sh: `python -m local_test PROGRAM ARGUMENTS`."""

import sys

from local_test import options
from local_test.errors import guarded


def main(program: str, arguments: list[str]) -> None:
    if program == "serve_local.sh":
        from local_test import serve_local

        serve_local.serve(arguments)
    else:
        asked = options.parse(arguments, program)
        from local_test import run

        run.run(asked, serve=program == "run.sh")


if __name__ == "__main__":
    sys.exit(guarded(sys.argv[1], lambda: main(sys.argv[1], sys.argv[2:])))
