"""Training jobs, in the cloud and in local mode."""
