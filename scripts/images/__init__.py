"""Docker images: here, and in registries."""
