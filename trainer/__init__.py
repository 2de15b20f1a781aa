"""The laboratory: from HAM10000 to a bundle."""
