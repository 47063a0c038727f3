"""Training: step, loop, optimisers, teacher, initial weights, metrics."""
