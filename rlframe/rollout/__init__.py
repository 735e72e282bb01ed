"""Samples completions: the engine as a plain async class, and the pool of engine actors."""
