"""Offline data preparation; may import `deskpro_jax`, which never imports it."""
