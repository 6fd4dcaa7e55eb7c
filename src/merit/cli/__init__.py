"""The `merit` command: one file per noun, loaded when it is asked for."""
