"""Pixel sampling with the horizontal pyramid: embeddings and one training step."""

from golden_cases.sps import HEAVY, run

__all__ = ["HEAVY", "run"]
