"""Checkpoints: the Orbax store, which are kept, which is reported."""
