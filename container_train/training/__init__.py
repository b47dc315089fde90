"""The training loop: device, precision, epochs, metrics, checkpoints."""
