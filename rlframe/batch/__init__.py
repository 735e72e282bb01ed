"""Rated groups -> training samples -> each rank's share -> packed batches. Pure; runs on the driver's CPU."""
