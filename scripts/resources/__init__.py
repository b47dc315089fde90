"""The resources of the project in an account and on this machine: found, and removed if nothing uses it."""
