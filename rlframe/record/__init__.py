"""Writers and readers of a run's files: each format has one module."""
