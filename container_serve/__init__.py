"""The serving program and the artifact's contract; knows nothing of torch."""

# The version of the whole project: every --version, the images' tags and labels, and pyproject.toml take it from here.
__version__ = "0.1.0"
