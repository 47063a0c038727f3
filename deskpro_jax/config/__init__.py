"""Configurations: found, read, compared, and what their fields name in user modules."""
