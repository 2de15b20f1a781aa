"""What leaves the database: files for people and other systems."""
