"""Pure functions of volume rendering."""
