"""The model card: written from the figures of an evaluation, never by hand."""
