"""Folders of images: fetching them, unpacking them, finding their classes and splitting them."""
