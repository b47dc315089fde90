#!/usr/bin/env bash
# Pushes the images to ECR; what it does stands in scripts/images/push.py. Runs on bash 3.2 too, the one of macOS.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

python=$root/.venv/bin/python
[ -x "$python" ] || python=$root/.venv-cloud/bin/python
if [ ! -x "$python" ]; then
    # Help works before a set-up.
    for argument; do
        case $argument in
            --version) exec sed -n 's/^__version__ = "\(.*\)"$/push.sh \1/p' "$root/container_serve/__init__.py" ;;
            -h | --help) exec sed -n -e '1s/^"""//p' -e '2,/^"""/{/^"""/!p;}' "$root/scripts/images/push.py" ;;
        esac
    done
    "$root/local_test/setup.sh" cloud >&2
fi
# -P keeps the folder of the call off the path, where another `scripts` may lie.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec "$python" -P -m scripts.images.push "$@"
