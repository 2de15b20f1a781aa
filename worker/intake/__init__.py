"""From an archive to a job with chunks and images."""
