"""What a training is made of: its stages, what it watches and keeps, and how it learns from other runs."""
