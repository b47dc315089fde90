#!/usr/bin/env bash
# Train, export, serve and query on this machine, in one command; see --help and docs/quickstart.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
program=${BYOC_PROGRAM:-run.sh}
trap 'echo "$program: stopped" >&2; exit 143' TERM

# A typing error shows now, not after minutes of setting up.
if [ ! -x "$root/.venv/bin/python" ] && [ "$program" != serve_local.sh ]; then
  python=$("$here/setup.sh" --find)
  PYTHONPATH=$root "$python" -P -m local_test.options "$program" "$@"
  case " $* " in *" -h "* | *" --help "* | *" --version "*) exit 0 ;; esac
fi
"$here/setup.sh"
export BYOC_SETUP_SECONDS=$SECONDS PYTHONPATH=$root
exec "$root/.venv/bin/python" -P -m local_test "$program" "$@"
