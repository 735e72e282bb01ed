"""Written rows, demonstrations and comparisons: their files, their tokens, and the stream that a tuning run takes."""
