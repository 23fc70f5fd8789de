"""Recipes: YAML files, shipped as package data."""
