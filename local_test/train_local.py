"""`train_local.sh`: stage, train and pack, with the flags of run.sh."""

import sys

from local_test import run

if __name__ == "__main__":
    sys.exit(run.main(sys.argv[1:], program="train_local.sh"))
