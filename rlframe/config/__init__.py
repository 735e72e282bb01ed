"""A run's configuration: its classes, its rules, and Hydra at the border."""
