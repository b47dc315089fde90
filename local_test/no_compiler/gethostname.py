"""In place of sagemaker-training's library for MPI, which takes this module's file name and nothing else."""
