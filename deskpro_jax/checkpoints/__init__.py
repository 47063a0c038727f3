"""Checkpoints: the Orbax store, scores, which are kept, which one results come from."""
