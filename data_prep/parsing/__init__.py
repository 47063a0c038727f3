"""SCHP, the human parser: which part of a person, or which garment, every pixel of a photo shows."""
