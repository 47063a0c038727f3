"""From embeddings to scores: matching rules, protocols, similarity, ranking, re-ranking, results."""
