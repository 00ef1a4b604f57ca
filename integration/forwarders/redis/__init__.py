"""What is Redis's own; what every destination does is shown by the suite above."""
