"""Trained networks as programs for other runtimes: one function from images to embeddings, as StableHLO or ONNX."""
