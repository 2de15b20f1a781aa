"""From a path to the model's input: read, decode, measure quality, preprocess. Shared by worker and trainer."""
