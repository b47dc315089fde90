"""The search for hyperparameters: its space, its trials, and what they say, in the cloud and on this machine."""
