"""Calibration, thresholds and their confidence intervals."""
