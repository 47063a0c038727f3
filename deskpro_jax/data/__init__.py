"""Datasets: what an example holds, how it is built, read, sampled and augmented."""
