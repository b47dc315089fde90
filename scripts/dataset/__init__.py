"""Folders of pictures: fetching them, unpacking them, finding their classes and splitting them."""
