"""A run's configuration: its classes, its checks, and the border with Hydra."""
