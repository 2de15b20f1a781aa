"""From the bytes of a file to the model's input. The trainer uses the same code."""
