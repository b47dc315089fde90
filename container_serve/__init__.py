"""The serving program and the artifact's contract; knows nothing of torch."""
