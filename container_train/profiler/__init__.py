"""What the machine does while a training runs, and where the time goes.

sampler (machine, cgroup, gpu) and timeline write; store reads back; rules judge; report shows.
"""
