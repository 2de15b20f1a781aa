"""From a trained run to a bundle that workers load."""
