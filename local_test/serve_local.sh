#!/bin/sh
# The second half of run.sh: serve a model until Ctrl-C.
BYOC_PROGRAM=serve_local.sh exec "$(dirname "$0")/run.sh" "$@"
