"""Networks, their predictions and their conversion."""
