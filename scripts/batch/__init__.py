"""Batch transform: a model over all images of a folder or prefix, with a table of answers at the end."""
