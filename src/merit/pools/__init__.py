"""Where workers' processes come from."""
