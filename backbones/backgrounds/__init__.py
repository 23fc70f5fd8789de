"""What stands behind a backbone's foreground: colour, sphere."""
