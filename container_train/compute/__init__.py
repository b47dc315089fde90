"""The device and its arithmetic, the processes that train together, and the flag that stops them."""
