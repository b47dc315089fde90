"""What the scripts share that talk to AWS: settings, names, requests and their errors."""
