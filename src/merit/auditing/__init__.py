"""Whether work is right: checks, comparison of answers, votes, reputation, detection of cheats."""
