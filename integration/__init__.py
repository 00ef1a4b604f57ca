"""Tests on real servers, with the means to break them. README.md is the map of this folder."""
