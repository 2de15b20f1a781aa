"""The kinds of archive that dermq reads."""
