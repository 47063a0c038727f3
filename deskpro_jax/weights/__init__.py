"""Weights in other frameworks' names: explicit tables, one entry a tensor, usable in both directions."""
