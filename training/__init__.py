"""Objectives, phases, trainer, averaging, checkpoints."""
