"""The figures of an evaluation, one subject each, as the JSON that report and card are made of."""
