"""Networks are given photos that are resized by the filter that they were trained with, wherever they are opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import small_models
from deskpro_jax import Embedder
from deskpro_jax.cli import convert
from deskpro_jax.errors import InputError


def test_an_embedder_resizes_by_the_recorded_filter(tiny_data: Path, tmp_path: Path) -> None:
    networks = {"model__backbone": "x0_25", "model__feature_dim": 8}
    folder = small_models.write_workdir(
        tmp_path / "run", tiny_data, "csa,debug", data__interpolation="bicubic", **networks
    )
    assert convert.main([str(folder), "--to", str(tmp_path / "run.safetensors")]) == 0
    noise = np.random.default_rng(0).integers(0, 256, (17, 9, 3), dtype=np.uint8)
    photo = Image.fromarray(noise)
    for source in (folder, tmp_path / "run.safetensors"):
        embedder = Embedder(source)
        assert embedder.interpolation == embedder.settings["interpolation"] == "bicubic"
        height, width = embedder.body_size
        cubic, even = (
            embedder.embed([photo.resize((width, height), how)])
            for how in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
        )
        np.testing.assert_array_equal(embedder.embed([photo]), cubic)
        assert np.abs(cubic - even).max() > 1e-6


def test_outputs_of_earlier_versions_have_the_same_settings(untrained: Path) -> None:
    assert "interpolation" not in Embedder(untrained).settings


def test_a_filter_that_there_is_not_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    folder = small_models.write_workdir(tmp_path, tiny_data, "csa,debug", data__interpolation="lanczos")
    with pytest.raises(InputError, match=r"data\.interpolation is 'lanczos'; expected one of bilinear, bicubic"):
        Embedder(folder)
