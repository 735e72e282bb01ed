"""Writers and readers of a run's files, one module a format."""
