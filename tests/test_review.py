"""The review page shows what prepare made, by itself, and can be filtered."""

from __future__ import annotations

import base64
import html.parser
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import standins
from data_prep import review
from data_prep.reviewing import cards, choose, colours
from data_prep.table import Overview, read_table
from deskpro_jax.data.schema import ATR, LIP, PASCAL
from deskpro_jax.errors import MissingInputError

COUNT = 30


class Page(html.parser.HTMLParser):
    """The elements of a page: name, attributes, text inside."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    standins.draw_photos(folder / "photos", COUNT)
    (folder / "photos" / "a" / "<b>&.png").write_text("no image")
    assert standins.run(standins.flags(folder, folder / "photos", folder / "out")) == 1
    return folder / "out"


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    assert review.main([str(out), f"--out={out.parent / 'page.html'}"]) == 0
    return Page((out.parent / "page.html").read_text())


def every_row(out: Path) -> list[dict[str, Any]]:
    return read_table(out).to_pylist()


def image(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_every_photo_has_a_card_that_the_filter_can_tell_apart(out: Path, page: Page) -> None:
    rows = every_row(out)
    assert len(page.all("article")) == len(rows) == COUNT + 1
    for row, article in zip(rows, page.all("article"), strict=True):
        assert article["data-score"] == ("" if row["score"] is None else str(row["score"]))
        failed = row["status"] != "ok"
        assert article["data-parse"] == ("failed" if failed else "done")
        assert article["data-detect"] == ("failed" if failed else "done" if row["has_face"] else "nothing")
        assert article["data-restore"] == article["data-detect"]
        assert row["image"] in page.text  # names are escaped, not run


def test_a_card_has_the_photo_its_mask_its_box_and_both_faces(out: Path, page: Page) -> None:
    rows = [row for row in every_row(out) if row["status"] == "ok"]
    faces = sum(row["has_face"] for row in rows)
    images = page.all("img")
    for alt, count, kind in (
        ("photo", COUNT, "JPEG"),
        ("part labels", COUNT, "PNG"),
        ("face in the photo", faces, "JPEG"),
        ("restored face", faces, "JPEG"),
    ):
        found = [image(attributes["src"]) for attributes in images if attributes["alt"] == alt]
        assert len(found) == count, alt
        assert {picture.format for picture in found} == {kind}
        assert max(max(picture.size) for picture in found) <= cards.BODY_SIDE
    box = next(row["box"] for row in rows if row["has_face"])
    assert {"x": str(box[0]), "y": str(box[1]), "width": "16.0", "height": "18.0", "class": "outer"} in page.all("rect")


def test_the_page_needs_nothing_else(out: Path, page: Page) -> None:
    text = (out.parent / "page.html").read_text()
    assert not re.search(r"https?://|<link|@import|url\(|src=\"(?!data:)", text)
    assert not re.search(re.escape(str(out.parent)), text)
    names = {attributes.get("name") for tag in ("select", "input") for attributes in page.all(tag)}
    assert {"stage", "status", "min", "max"} <= names
    assert [a for a in page.all("meta") if a.get("name") == "viewport"]


def test_the_size_is_bounded(out: Path, tmp_path: Path) -> None:
    rng_photo = standins.draw_photo(1, (700, 1400))
    folder = tmp_path / "photos"
    folder.mkdir()
    rng_photo.save(folder / "large.png")
    assert standins.run(standins.flags(tmp_path, folder, tmp_path / "out")) == 0
    assert review.main([str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "review.html").stat().st_size < 100_000


def test_masks_keep_their_labels_and_say_their_shares(out: Path) -> None:
    row = next(row for row in every_row(out) if row["has_parts"])
    kinds = colours.kinds(LIP)
    found = cards.card(row, out, out.parent / "photos", kinds)
    with Image.open(out / "parts" / f"{row['image_id']}.png") as labels, image(found["mask"]) as drawn:
        assert drawn.size == labels.size
        expected = [kinds[label].colour for label in labels.tobytes()]
        shown = ["#{:02x}{:02x}{:02x}".format(*pixel) for pixel in np.asarray(drawn.convert("RGB")).reshape(-1, 3)]
        assert shown == expected
        assert drawn.info["transparency"] == 0
    shares = {kind.colour: share for kind, share in found["shares"]}
    for colour in set(expected) - {colours.BACKGROUND.colour}:
        assert shares[colour] == pytest.approx(expected.count(colour) / len(expected))


@pytest.mark.parametrize("scheme", [LIP, ATR, PASCAL], ids=lambda scheme: scheme.name)
def test_clothing_is_one_kind_and_nothing_else_is(scheme: Any) -> None:
    kinds = colours.kinds(scheme)
    assert [label for label, kind in enumerate(kinds) if kind == colours.CLOTHING] == list(scheme.clothing)
    assert kinds[0] == colours.BACKGROUND
    assert colours.FACE in kinds
    assert len({kind.colour for kind in colours.KINDS}) == len(colours.KINDS)


def test_samples_show_the_doubtful_ones_and_are_the_same_every_time() -> None:
    position = np.arange(1000)
    failed, has_face = position % 100 == 7, position % 4 > 0
    score = np.where(has_face & ~failed, position / 1000, np.nan)
    photos = Overview(failed, ~failed, ~failed, ~failed, has_face, score, score)
    chosen = choose.choose(photos, 60)
    assert chosen == choose.choose(photos, 60) == sorted(set(chosen))
    assert len(chosen) == 60
    assert failed[chosen].sum() >= 10
    assert {1, 2, 3} <= set(chosen)  # the lowest scores
    assert (~failed & ~has_face)[chosen].sum() >= 10
    assert max(b - a for a, b in itertools.pairwise(chosen)) < 100
    few = Overview(*(column[:5] for column in photos))
    assert choose.choose(few, 60) == [0, 1, 2, 3, 4]
    assert len(choose.choose(photos, 1)) == 1


def test_missing_and_damaged_files_are_notes_on_the_card(out: Path) -> None:
    row = next(row for row in every_row(out) if row["has_face"])
    file = out / "restored_face" / f"{row['image_id']}.png"
    content = file.read_bytes()
    try:
        for damage, words in ((content[:100], "cannot be read"), (None, "is missing")):
            file.unlink() if damage is None else file.write_bytes(damage)
            found = cards.card(row, out, out.parent / "photos", colours.kinds(LIP))
            assert len(found["notes"]) == 1
            assert words in found["notes"][0]
            assert "body" in found
    finally:
        file.write_bytes(content)


def test_photos_that_moved_are_found_with_a_flag(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = json.loads((out / "prepare.json").read_text())
    assert settings["images"] == "../photos"
    moved = tmp_path / "out"
    moved.mkdir()
    for name in ("prepare.json", "images.parquet"):
        (moved / name).write_bytes((out / name).read_bytes())
    assert review.main([str(moved)]) == 2
    assert "say with --images where they are now" in capsys.readouterr().err
    assert review.main([str(moved), f"--images={out.parent / 'photos'}", "--samples=3"]) == 0
    assert "3 photos" in capsys.readouterr().out
    assert not [path for path in moved.iterdir() if path.name.startswith(".")]


def test_wrong_folders_and_flags_are_one_line(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ([str(tmp_path / "none")], "no folder at"),
        ([str(tmp_path)], "no prepare.json in"),
        ([str(out), "--samples=0"], "--samples is 0"),
        ([str(out), f"--out={tmp_path}"], "is a folder; --out takes an HTML file"),
    ):
        assert review.main(arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert words in err
    (tmp_path / "prepare.json").write_text('{"stages": {}}')
    with pytest.raises(MissingInputError, match=r"no images.parquet in .*once it has finished"):
        read_table(tmp_path)
    (tmp_path / "images.parquet").write_text("no table")
    assert review.main([str(tmp_path)]) == 2
    assert "images.parquet cannot be read" in capsys.readouterr().err


def test_without_jinja2_the_error_names_the_extra(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.dict("sys.modules", {"jinja2": None}):
        assert review.main([str(out), f"--out={out.parent / 'other.html'}"]) == 2
    assert "pip install 'deskpro_jax[prep]'" in capsys.readouterr().err
    assert not (out.parent / "other.html").exists()
