"""What goes into a bundle: its folder, the networks, and what dermoscopy looks like."""
