"""ZeRO-3 -> object store -> vLLM."""
