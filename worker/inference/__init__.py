"""A bundle, the engines that run it, and what its probabilities mean. The trainer uses the same code."""
