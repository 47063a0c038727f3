"""DeSKPro in JAX: identity-sensitive knowledge propagation for cloth-changing person re-identification."""

__version__ = "0.1.0"
