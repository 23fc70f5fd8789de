"""Priors: named losses on a Scene, one file a family."""
