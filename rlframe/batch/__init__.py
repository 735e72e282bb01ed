"""Groups -> records -> planned samples -> each rank's share; on a rank: training samples -> packed batches. Pure."""
