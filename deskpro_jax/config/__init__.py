"""Configurations: finding, reading, comparing and checking them, and the user modules that their fields name."""
