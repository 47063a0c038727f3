"""Searches embeddings: exactly, by an index, with verification thresholds."""
