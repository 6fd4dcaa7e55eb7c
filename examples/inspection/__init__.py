"""Inspect a source tree with a fleet of workers: one task per file and capability, one report at the end.

The analyses are plain functions in modules of their own (`metrics`, `documentation`, `suspicious`, `credentials`,
`duplicates`); `capabilities` offers them to Merit; `findings` and `report` make one document of what came back.
"""
