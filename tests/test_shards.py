"""A shard has the same bytes wherever and whenever it is written, and is written again only when its files changed."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from author_trees import TREES, draw, encode, write, write_parts
from deskpro_jax.data.build import shards, workers
from deskpro_jax.data.build.assemble import Assembled
from deskpro_jax.data.build.image_sources import DatasetListing, ImageSource, PartsFormat
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.build.shards import Shard
from deskpro_jax.data.schema import SPLITS


@pytest.fixture
def listing(tmp_path: Path) -> DatasetListing:
    write_parts(write("celeb", tmp_path / "raw"), tmp_path / "parts")
    return list_dataset("celeb", tmp_path / "raw", tmp_path / "parts")


def plan(listing: DatasetListing, folder: Path) -> list[Shard]:
    folder.mkdir(exist_ok=True)
    return shards.plan(listing.sources, listing.parts_format, folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != "lock"}


def test_a_plan_depends_on_names_alone(
    listing: DatasetListing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "IMAGES", 3)
    planned = plan(listing, tmp_path)
    assert [(shard.split, shard.number, len(shard.sources)) for shard in planned] == [
        *(("train", 0, 2), ("train", 1, 3), ("train", 2, 2)),
        ("query", 0, 2),
        *(("gallery", 0, 2), ("gallery", 1, 3)),
    ]
    random.Random(0).shuffle(listing.sources)
    assert plan(listing, tmp_path) == planned
    assert sorted(s.image_id for shard in planned for s in shard.sources if shard.split == "train") == sorted(
        photo.image_id for photo in TREES["celeb"].values() if photo.split == "train"
    )


def test_large_splits_have_a_thousand_shards_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [ImageSource("train", str(i), 0, 0, 0, "x") for i in range(5000)]
    assert [len(shard.sources) for shard in shards.plan(sources, PartsFormat(), Path("x"))] == [1000] * 5
    assert shards.MAX_SHARDS == 1024
    monkeypatch.setattr(shards, "MAX_SHARDS", 4)
    assert [len(shard.sources) for shard in shards.plan(sources, PartsFormat(), Path("x"))] == [1250] * 4


def test_the_order_is_that_of_the_writer_of_tfds() -> None:
    from tensorflow_datasets.core import hashing

    for split in SPLITS:
        hasher = hashing.Hasher(split)
        names = [f"{i}_c1_{i}" for i in range(50)]
        assert sorted(names, key=hasher.hash_key) == sorted(names, key=lambda name: shards._order(split, name))


@pytest.mark.parametrize("processes", [0, 2])
def test_bytes_are_the_same_every_time(
    processes: int, listing: DatasetListing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "IMAGES", 4)
    monkeypatch.setattr(workers, "IMAGES", 4)
    for shard in plan(listing, tmp_path / "a"):
        shards.write_shard(shard)
    workers.run_local(plan(listing, tmp_path / "b"), processes, shown=False)
    assert len(contents(tmp_path / "a")) == 2 * 5
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_only_shards_whose_files_changed_are_written_again(
    listing: DatasetListing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "IMAGES", 1)
    planned = plan(listing, tmp_path / "work")
    for shard in planned:
        shards.write_shard(shard)
    before = contents(tmp_path / "work")
    read: list[str] = []
    original = shards.assemble

    def assemble(source: ImageSource, parts_format: PartsFormat) -> Assembled:
        read.append(source.image_id)
        return original(source, parts_format)

    monkeypatch.setattr(
        shards, "assemble", lambda source, parts_format: read.append(source.image_id) or original(source, parts_format)
    )

    changed = Path(next(s.body for s in listing.sources if s.image_id == "3_1_0"))
    changed.write_bytes(encode(draw(TREES["celeb"]["query/1_1_0.jpg"]), ".jpg"))
    planned[-1].records.unlink()
    planned[-2].report.write_text("{")
    face = Path(next(s.face for s in listing.sources if s.image_id == "3_2_0") or "")
    os.utime(face, ns=(1, 1))
    for shard in planned:
        shards.write_shard(shard)
    lost = {planned[-1].sources[0].image_id, planned[-2].sources[0].image_id}
    assert sorted(read) == sorted({"3_1_0", "3_2_0"} | lost)
    after = contents(tmp_path / "work")
    different = {name for name in before if before[name] != after[name]}
    assert len(different) == 3  # records and report of the photo, the report of the face that was touched


def test_a_bad_file_is_in_the_report_and_in_no_record(listing: DatasetListing, tmp_path: Path) -> None:
    bad = [s for s in listing.sources if s.split == "query"]
    for source in bad:
        Path(source.body).write_bytes(b"")
    planned = plan(listing, tmp_path / "work")
    reports = {shard.split: shards.write_shard(shard) for shard in planned}
    assert [finding.file for finding in reports["query"].findings] == sorted(
        (s.body for s in bad), key=lambda body: hashlib.md5(f"query{Path(body).stem}".encode()).digest()
    )
    assert (reports["query"].images, reports["query"].size) == (0, 0)
    assert not next(shard for shard in planned if shard.split == "query").records.exists()
    assert reports["train"].images == 7
    assert shards.reports(planned) == [reports[shard.split] for shard in planned]
