"""The policy's update: DeepSpeed ZeRO-3 ranks as one group of actors."""
