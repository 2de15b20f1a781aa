"""Evaluation of a trained run or a bundle on images that it has not seen."""
