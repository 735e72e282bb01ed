"""Small real things that tests run on."""
