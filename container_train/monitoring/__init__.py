"""Debugger and profiler as the training program sees them: phases, steps, and the processes beside it."""
