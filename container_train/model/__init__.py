"""The network: torchvision's architectures with a new last layer, frozen up to a named module."""
