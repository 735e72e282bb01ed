"""Replicas, calls and failures: the code that all Ray actors of a run share."""
