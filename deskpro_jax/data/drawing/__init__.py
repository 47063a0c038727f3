"""Draws synthetic people: identity traits, clothes, pose, scene and camera, one job a module."""
