"""System metrics and the timeline of a training.

sampler (machine, gpu) and timeline write; store reads back; rules judge; reporting shows.
"""
