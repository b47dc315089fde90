"""Versions of models in the model registry of SageMaker."""
