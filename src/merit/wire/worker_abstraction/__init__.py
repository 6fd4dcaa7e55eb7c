"""The unary worker contract, as agents in the field have it: its package has no version, and its numbers never change."""
