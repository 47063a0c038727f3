"""Embeds photos: the Embedder, photo lists, faces, resumable jobs, files of embeddings."""
