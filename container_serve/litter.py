"""The files that an operating system leaves in every folder that it shows: they belong to no model and no data set."""

NAMES = frozenset({".ds_store", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"})


def is_litter(name: str) -> bool:
    """Tell by the name of a file or folder: macOS's .DS_Store, ._* and __MACOSX, Windows' Thumbs.db and desktop.ini."""
    return name.startswith("._") or name.casefold() in NAMES
