"""Flax modules of DeSKPro: OSNet blocks, LightMBN heads, cloth-irrelevant attention, the two-stream model."""
