"""Weights in transit: shards, buckets and deltas of a version, and the object that brings a version to the engines."""
