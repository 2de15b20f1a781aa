"""Figures computed from predictions. Nothing here reads an image."""
