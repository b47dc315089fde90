"""The parts that all scripts' command lines share."""
