"""dermq inside Flower: pages, JSON, metrics, and who may see them."""
