"""Programs that are measured, each in a process of its own; those of one name run in both environments."""
