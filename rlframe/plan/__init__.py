"""A run's demand before any start: parameters, memory, transfers and seconds, from its config and a config.json."""
