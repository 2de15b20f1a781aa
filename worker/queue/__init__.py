"""The Celery application, its hints and its sweeper. Nothing here loads image code."""
