"""For tests of Merit, its adapters and its users' policies: contract suites, planned faults, builders.

A contract suite is a class of tests that says what every adapter of a port must do. To test an adapter, subclass it in
a test module and override the fixture that opens one. The suites need pytest and, where a port may be awaited,
pytest-asyncio in its `auto` mode.
"""
