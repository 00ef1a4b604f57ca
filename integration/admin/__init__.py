"""The admin API and the command line on real servers."""
