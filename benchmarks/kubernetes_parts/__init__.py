"""A Kubernetes API in memory and pods as processes, over which Ray's own autoscaler works in the tests."""
