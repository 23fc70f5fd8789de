"""Backbones: one folder a GAN family."""
