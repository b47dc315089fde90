#!/bin/sh
# The first half of run.sh: train and pack model.tar.gz.
BYOC_PROGRAM=train_local.sh exec "$(dirname "$0")/run.sh" "$@"
