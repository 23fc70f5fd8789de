"""Readers of camera files: each gives the same frames, whatever axes and units its format has."""
