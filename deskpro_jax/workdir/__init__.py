"""A run's folder: layout, configuration, and the networks in it."""
