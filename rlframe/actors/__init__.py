"""Handles, calls and failures: what every Ray actor of a run shares."""
