"""The features of the frozen layers: computed once per image, kept on disk, and read in every epoch."""
