"""Shared by all tests: CPU by default, parsed absl flags, a persistent compilation cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE = Path(os.environ.get("DESKPRO_TEST_CACHE", Path(tempfile.gettempdir()) / "deskpro_jax_test_cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")

from absl import flags  # noqa: E402

flags.FLAGS.mark_as_parsed()  # Grain's worker processes and readers look at absl flags
