"""The package that this one is compared with, used as its manual says. It is imported nowhere else."""
