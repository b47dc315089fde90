"""Several processes: one per GPU, or one per host without GPUs."""
