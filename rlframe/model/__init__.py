"""The policy in pure PyTorch: packed attention, log-probabilities, experts, adapters, the base model on disk."""
