"""Thin shells that give the pure core a clock, a loop and a journal."""
