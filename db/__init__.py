"""The truth: tables, sessions, claims, queries and migrations. Imports nothing else of dermq."""
