"""Reads built datasets: splits, batches, decoding, augmentation."""
