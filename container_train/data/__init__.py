"""The channels: folders of class folders, their images and labels, and the batches that are read from them."""
