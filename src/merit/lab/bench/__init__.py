"""The benchmarks of ``merit bench``: what a client outside sees, with real processes on this machine.

One file for each benchmark, each with a ``run`` that gives figures; ``suite`` knows them all. Everything is measured on
the loopback interface, with everything on that is on by default.
"""
