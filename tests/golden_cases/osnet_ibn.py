"""OSNet-IBN against torchreid's: embeddings and a training step."""

from golden_cases.osnet_ain import HEAVY, run

__all__ = ["HEAVY", "run"]
