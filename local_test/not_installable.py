"""The build backend of `pip install .`, which says in one line what to do instead."""

raise SystemExit("byoc-image-classifier is cloned, not installed: run ./local_test/run.sh in the clone; see README.md")
