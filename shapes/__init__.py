"""Procedural heads, morphable models, meshes."""
