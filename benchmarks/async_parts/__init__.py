"""The parts of `async_scale.py`: a virtual clock, a trace of lengths, and engines, rewards and learner that take time.

An engine's or learner's class is found by its import path, `file.py:Class`, so a model of other hardware needs no
change here.
"""
