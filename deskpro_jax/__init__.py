"""DeSKPro in JAX: identity-sensitive knowledge propagation for cloth-changing person re-identification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deskpro_jax.embedding.embedder import Embedder

__all__ = ["Embedder", "__version__"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name == "Embedder":  # imports JAX, which most of the package's users for data alone never need
        from deskpro_jax.embedding.embedder import Embedder

        return Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
