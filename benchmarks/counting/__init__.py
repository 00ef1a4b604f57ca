"""Work that is counted and not timed: the same on every machine, so that CI can hold it to a baseline."""
