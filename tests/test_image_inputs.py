"""Every command takes and refuses the same images, in the same words: single kinds by itself, many by its code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import image_inputs
import image_readers
import standins
from data_prep import build, check
from data_prep.table import read_table
from deskpro_jax.cli import embed, search
from deskpro_jax.data.image_report import KINDS
from deskpro_jax.data.images import inspect_image
from deskpro_jax.data.photo_names import has_heic_reader
from deskpro_jax.embedding import embedder as embedder_module
from deskpro_jax.embedding.embedder import Embedder
from deskpro_jax.errors import InputError

SINGLE = image_inputs.single()
COMMANDS = ("check", "build", "prepare", "embed", "search", "Embedder")
SAMPLE = 100


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "photos"
    folder.mkdir()
    for file, _ in SINGLE.values():
        (folder / file.name).write_bytes(file.content)
    return folder


def compiled(networks: Any, flip: bool, mesh: Any) -> Any:
    """Stands in for the networks: embeds the mean colours of sixteen bands."""
    width = sum(spec.width for network in networks for spec in network.streams)

    def run(variables: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
        body = np.asarray(batch["body"], np.float32)
        bands = body.reshape(len(body), 16, -1, body.shape[2], 3).mean((2, 3)).reshape(len(body), 48)
        return np.resize(bands.T, (width, len(body))).T / 255

    return run


@pytest.fixture(scope="module")
def verdicts(photos: Path, untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What each command says of each file: "" where it takes it."""
    out = tmp_path_factory.mktemp("verdicts")
    with (
        mock.patch.object(embedder_module, "_compiled", compiled),
        mock.patch("sys.stderr.write", lambda text: len(text)),
    ):
        return {
            **_datasets(photos, out),
            "prepare": _prepare(photos, out),
            **_embeddings(photos, untrained, out),
        }


def _datasets(photos: Path, out: Path) -> dict[str, dict[str, str]]:
    rows = ["path,split,identity,camera,clothes"]
    rows += [f'"{file.name}",train,{i},1,1' for i, (file, _) in enumerate(SINGLE.values())]
    for split in ("query", "gallery"):
        image_inputs.draw("RGB", (64, 128), ord(split[0])).save(photos.parent / f"{split}.png")
        rows.append(f"../{split}.png,{split},1,{1 + (split == 'query')},1")
    manifest = photos / "manifest.csv"
    manifest.write_text("\n".join(rows), encoding="utf-8")
    assert check.main([str(photos), "--no-sheet", "--json", str(out / "check.json"), "--workers", "0"]) == 1
    found = json.loads((out / "check.json").read_text())
    checked = {Path(p["file"]).name: p["text"].strip() for p in found["problems"]}
    arguments = [
        "--dataset",
        "folder",
        "--raw",
        str(photos),
        "--out",
        str(out / "data"),
        "--skip-bad",
        "--workers",
        "0",
    ]
    assert build.main(arguments) == 0
    (metadata,) = (out / "data").glob("cc_reid/folder/*/metadata.json")
    left_out = json.loads(metadata.read_text())["left_out"]
    manifest.unlink()
    by_name = {}
    for line in left_out:
        name = next(file.name for file, _ in SINGLE.values() if line.startswith(f"{photos / file.name} "))
        by_name[name] = line.removeprefix(f"{photos / name} ")
    return {"check": checked, "build": by_name}


def _prepare(photos: Path, out: Path) -> dict[str, str]:
    assert standins.run(standins.flags(out, photos, out / "prepared")) == 1
    table = read_table(out / "prepared")
    return {row["image"]: "" if row["status"] == "ok" else row["status"] for row in table.to_pylist()}


def _embeddings(photos: Path, workdir: Path, out: Path) -> dict[str, dict[str, str]]:
    common = ["--checkpoint", str(workdir), "--threads", "2", "--batch", "8"]
    said = {}
    for command, main, flags in (
        ("embed", embed.main, ["--images", str(photos), "--out", str(out / "e.npy")]),
        ("search", search.main, ["--query", str(photos), "--gallery", str(out / "e.npy"), "--out", str(out / "m.csv")]),
    ):
        lines: list[str] = []
        with mock.patch("sys.stderr.write", lambda text, lines=lines: lines.append(text)):
            assert main([*common, *flags]) == 1
        said[command] = _by_name("".join(lines))
    embedder = Embedder(workdir, batch=1, threads=1)
    said["Embedder"] = {}
    for file, _ in SINGLE.values():
        try:
            embedder.embed([photos / file.name])
        except InputError as error:
            said["Embedder"][file.name] = re.fullmatch(r"image 0 \(.*?\) cannot be used: (.*)\.", str(error))[1]
    return said


def _by_name(text: str) -> dict[str, str]:
    """Returns the reasons that `embed` and `search` print, by the name of the file."""
    reasons = {}
    between = "(?: could not be read and was not searched for)?: "
    for line in text.splitlines():
        for file, _ in SINGLE.values():
            match = re.search(re.escape(f"/{file.name}") + between + "(.*)", line)
            if match and not line.startswith("note:"):
                reasons[file.name] = match[1]
    return reasons


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", SINGLE)
def test_every_command_has_the_same_verdict(
    kind: str, command: str, photos: Path, verdicts: dict[str, dict[str, str]]
) -> None:
    file, problem = SINGLE[kind]
    if problem == "heic" and has_heic_reader():
        problem = "unreadable"
    verdict = verdicts[command].get(file.name, "")
    report = inspect_image(file.content)
    assert report.problems == ((problem,) if problem else ())
    assert verdict == report.describe()
    assert verdict.startswith(KINDS[problem].text if problem else "")
    assert "Traceback" not in verdict


def test_eight_and_sixteen_bits_have_one_embedding(photos: Path, untrained: Path) -> None:
    with mock.patch.object(embedder_module, "_compiled", compiled):
        rows = Embedder(untrained, batch=3).embed([photos / name for name in ("grey8.png", "grey16.png", "deep.tif")])
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


def test_combined_kinds_are_taken_or_refused_alike(untrained: Path, tmp_path: Path) -> None:
    taken = 0
    with mock.patch.object(embedder_module, "_compiled", image_readers.compiled):
        commands = image_readers.readers(tmp_path, untrained)
        for file in image_inputs.combined(SAMPLE, seed=20, large_every=0):
            path = tmp_path / file.name
            path.write_bytes(file.content)
            said = image_readers.verdicts(path, commands)
            assert len(set(said.values())) == 1, (file.name, said)
            assert not said["check"].startswith("!!"), (file.name, said)
            taken += not said["check"]
            path.unlink()
    assert SAMPLE / 4 < taken < SAMPLE
