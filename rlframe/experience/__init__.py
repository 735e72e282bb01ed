"""Prompts in flight: the ledger that decides, and the event loop that samples and scores."""
