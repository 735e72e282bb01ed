"""Checks an overlay without a cluster: `python -m kubernetes.check OVERLAY`."""
