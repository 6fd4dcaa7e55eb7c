"""The unary worker contract: workers that are dialled, and orchestrators that dial."""
