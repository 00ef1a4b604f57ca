"""Faults for tests: a network that misbehaves, and processes that die or freeze."""
