"""Version 1 of the session contract and of what clients say."""
