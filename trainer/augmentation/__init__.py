"""Random changes to training images, and the perturbations that robustness is measured under."""
