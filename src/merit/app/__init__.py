"""Putting it together: configuration, wiring, processes."""
