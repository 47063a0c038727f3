"""Builds datasets from photos, masks and faces."""
