"""Segmenters and shape estimators."""
