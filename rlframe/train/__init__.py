"""The loop, and what it opens, saves, evaluates and watches."""
