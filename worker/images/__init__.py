"""From the bytes of a file to the model's input: read, decode, quality, preprocessing. The trainer uses the same code."""
