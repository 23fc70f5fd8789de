"""Data sets in the EG3D format, and the heads data set."""
