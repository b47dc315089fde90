"""Short as CI runs them, or in full: FAULTS=full."""

import os

FULL = os.environ.get("FAULTS") == "full"
