"""The nouns of Merit: tasks, attempts, workers, and the commands, events, effects and frames that speak of them.

Nothing here decides anything; see :mod:`merit.core` for that.
"""
