"""Adapters of the storage ports, one file per technology and port."""
