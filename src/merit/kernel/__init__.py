"""The cell's order of things, without any input or output: what is handled together, what waits for what is durable."""
