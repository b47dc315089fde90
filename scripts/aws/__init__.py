"""The shared parts of the scripts that talk to AWS: settings, names, requests and their errors."""
