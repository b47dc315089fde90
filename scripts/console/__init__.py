"""What all scripts' command lines have in common."""
