"""Data sets: reading them, checking them and splitting them."""
