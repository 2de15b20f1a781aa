"""Images from elsewhere: how a model does on them, and a bundle with thresholds of their own."""
