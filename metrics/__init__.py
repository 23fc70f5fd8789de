"""Measures of images and shapes."""
