"""Rows out of scored completions: filters, duplicates, held-out questions, the choice of each prompt. Pure."""
