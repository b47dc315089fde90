#!/usr/bin/env bash
# The second half of run.sh: serve a model until Ctrl-C.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

"$here/setup.sh"
export BYOC_SETUP_SECONDS=$SECONDS PYTHONPATH=$root
exec "$root/.venv/bin/python" -P -m local_test.serve_local "$@"
