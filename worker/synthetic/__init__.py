"""Synthetic lesions and archives for the demo and the tests. No real image goes into them."""
