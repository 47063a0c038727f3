"""Synthetic people: drawn photos, faces, masks and their labels."""
