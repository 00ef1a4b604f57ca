"""How fast it is, against what, and where the time goes: `make bench`. See docs/performance.md."""
