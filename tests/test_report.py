"""The report is one page that needs nothing else, shows what there is of a run, and says what is missing."""

from __future__ import annotations

import base64
import html.parser
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import runs
import small_models
from deskpro_jax.cli import report
from deskpro_jax.report import attention, contents, pictures, sections
from deskpro_jax.report.opened import Opened
from deskpro_jax.report.record import short_name

SECTIONS = (
    *("Results", "Curves", "Ranked lists", "Attention", "Similarities", "Hardest confusions", "Configuration"),
    "Versions",
)
SCORES = {f"{p}/{s}/{f}": 0.5 for p in ("general", "cc") for s in ("face", "body", "both") for f in ("mAP", "R-1")}


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, the headings, the text outside of style."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.headings: list[tuple[str, str]] = []
        self.text, self._open = "", ""
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((tag, ""))

    def handle_data(self, data: str) -> None:
        self.text += "" if self._open == "style" else data
        if self.headings and self._open == self.headings[-1][0]:
            self.headings[-1] = (self._open, self.headings[-1][1] + data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""
        self.text += " " if tag in ("td", "th", "dt", "dd") else ""

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write_record(folder: Path) -> None:
    """Adds what training writes: metrics of both phases, results."""
    for phase, terms in (("teacher", ("ce_face", "triplet_face")), ("student", ("attention", "ce_body", "kd"))):
        (folder / phase).mkdir(exist_ok=True)
        values = {**dict.fromkeys(terms, 1.0), "total": 2.0, "learning_rate": 1e-3}
        lines = [{"step": s, "epoch": s / 6, "time": 0, **values} for s in range(1, 13)]
        lines.append({"step": 12, "epoch": 2, "time": 0, **SCORES})
        (folder / phase / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    entry = {"protocol": "general", "stream": "both", "description": "<script>alert(1)</script>", "mAP": 0.123}
    record = {"dataset": "synthetic_tiny", "trained_on": "synthetic_tiny", "seed": 0, "versions": {"jax": "0.0.1"}}
    record |= {"results": [{**entry, "R-1": 0.25, "gallery": 16, "counted": 8, "dropped": {}}]}
    record |= {"checkpoint": {"report": "last", "student": 7}, "checksums": {"query": "abc"}}
    (folder / "results.json").write_text(json.dumps(record))
    (folder / "results-on-prcc.json").write_text(json.dumps({**record, "dataset": "prcc"}))


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with everything in it; its networks are as they were drawn."""
    folder = tmp_path_factory.mktemp("report") / "<run> & more"
    write_record(small_models.write_workdir(folder, tiny_data, eval__flip=False))
    return folder


@pytest.fixture(scope="module")
def text(trained: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page, beside a run without L_att."""
    other = small_models.write_workdir(
        tmp_path_factory.mktemp("other") / "csa", tiny_data, "csa,debug", seed=1, eval__flip=False
    )
    assert report.main([str(trained), "--images=110", "--ranks=5", f"--compare={other}"]) == 0
    return (trained / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings out of a hat, and no attention: nothing is compiled."""

    def drawn(opened: Opened) -> tuple[np.ndarray, np.ndarray]:
        width = sum(spec.width for spec in opened.trained.streams)
        rng = np.random.default_rng(0)
        found = [rng.standard_normal((len(s), width)).astype(np.float32) for s in (opened.query, opened.gallery)]
        return found[0], found[1]

    monkeypatch.setattr(contents, "embed", drawn)
    monkeypatch.setattr(contents, "_attention", lambda *args: sections.Shown(missing="not in this test"))


def test_the_page_needs_nothing_else(text: str, page: Page) -> None:
    assert not re.search(r"https?:|@import|<script|<link|<iframe|\son\w+=", text.replace("<script>alert", ""))
    assert "&lt;script&gt;alert(1)" in text  # what files say is text
    assert "<script>alert(1)" not in text
    sources = [image["src"] for image in page.all("img")]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            assert image.width <= pictures.WIDTH
            assert image.height <= pictures.HEIGHT
    assert all(image["alt"] for image in page.all("img"))
    assert all(chart["aria-label"] for chart in page.all("svg"))


def test_it_has_headings_in_order_and_a_table_of_contents(page: Page) -> None:
    assert [heading for tag, heading in page.headings if tag == "h2"] == list(SECTIONS)
    assert [heading for tag, heading in page.headings if tag == "h1"] == ["Report of <run> & more"]
    levels = [int(tag[1]) for tag, _ in page.headings]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(names)
    assert len(page.all("a")) == len(SECTIONS)


def test_its_pictures_are_bounded_and_counted(page: Page) -> None:
    count = len(page.all("img"))
    assert 60 < count <= 110
    assert re.search(rf"{count} pictures, \d\.\d MB", page.text)
    for images in range(0, 400, 7):
        for ranks in (1, 5, 10, 50):
            found = sections.divide(images, ranks)
            assert 3 * found.lists * (found.entries + 1) + found.attention + 6 * found.pairs <= images
            assert found.entries <= ranks


def test_curves_results_and_fields_are_on_it(page: Page) -> None:
    labels = [chart["aria-label"] for chart in page.all("svg")]
    for term in ("ce_face", "triplet_face", "attention", "kd", "ce_body"):
        assert any(label.startswith(f"{term} by epoch") for label in labels), term
    for phase_scores in ("general, mAP", "cc, R-1"):
        assert sum(label.startswith(f"{phase_scores} by epoch") for label in labels) == 2
    assert sum(label.startswith("learning rate") for label in labels) == 2
    assert {"12.3", "25.0", "results-on-prcc.json,", "0.0.1"} <= set(page.text.replace(";", ",").split())
    assert "prcc, checkpoint: last, student step 7, networks trained on synthetic_tiny" in page.text
    assert "≠ name" in page.text
    assert "≠ margin" not in page.text
    assert "The results on file have an mAP of 12.3 % here" in page.text  # these networks have another


def test_right_and_wrong_are_told_apart_without_colour(text: str, page: Page) -> None:
    kinds = [figure.get("class") for figure in page.all("figure")]
    right, wrong = kinds.count("right"), kinds.count("wrong")
    assert min(right, wrong) > 5
    assert text.count('<span class="mark">✓ right</span>') == right
    assert text.count('<span class="mark">✗ wrong</span>') == wrong
    assert ".right .frame { border: 4px solid" in text
    assert ".wrong .frame { border: 4px dashed" in text
    assert [heading for tag, heading in page.headings if "average precision" in heading] == [
        "Best average precision",
        "Median average precision",
        "Worst average precision",
    ]


def test_attention_is_beside_the_clothing_and_another_run(page: Page) -> None:
    titles = re.findall(r"(?:attention|refined features), (?:with L_att \(weight 7\)|without L_att)", page.text)
    assert len(set(titles)) == 4
    assert "clothing in orange, all else grey" in [image["alt"] for image in page.all("img")]
    assert re.search(
        r"without L_att: mean attention 0\.\d+ over clothing, 0\.\d+ elsewhere \(8 query images\)", page.text
    )


def test_means_over_clothing_are_those_of_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([[[0.2, 0.8], [0.4, 0.6]]], np.float32)
    middle = {
        "body": {"attention": jnp.asarray(values), "refined": jnp.asarray(values)[..., None] * jnp.array([2, -4])}
    }
    module = SimpleNamespace(apply=lambda *args, **options: ({}, middle))
    not_clothing = np.array([[[1, 0], [1, 0]]], np.uint8)
    found = attention._maps(module, {}, jnp.zeros((1, 2, 2, 3), jnp.uint8), jnp.asarray(not_clothing))
    np.testing.assert_allclose(found[1], 3 * values, rtol=1e-6)
    assert found[2].shape == (1, 0, 4)
    assert float(found[3][0]) == pytest.approx(0.7)
    assert float(found[4][0]) == pytest.approx(0.3)


def test_a_network_without_attention_shows_the_regions_that_it_cuts_out() -> None:
    boxes = jnp.array([[[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]]] * 2)
    module = SimpleNamespace(apply=lambda *args, **options: ({}, {"body": {"boxes": boxes}}))
    values = attention._maps(module, {}, jnp.zeros((2, 4, 2, 3), jnp.uint8), jnp.ones((2, 4, 2), jnp.uint8))
    assert values[0].shape == values[1].shape == (2, 0, 0)
    np.testing.assert_array_equal(values[2], boxes)
    assert np.isnan(values[3]).all()


def test_regions_are_outlined_within_the_photo() -> None:
    photo = Image.new("RGB", (60, 120), (10, 200, 30))
    boxes = np.array([[-0.2, 0.0, 0.25, 1.0], [0.5, 0.25, 0.75, 1.4]])
    drawn = np.asarray(pictures.outlined(photo, boxes)).astype(int)
    coloured = np.abs(drawn[..., 0] - drawn[..., 2]) > 20
    assert coloured[0, 1:-1].all()  # what lies beyond the photo is drawn along its border
    assert coloured[[60, 88], 20:57].all()
    assert not coloured[61 + 3 : 86, 20:50].any()
    assert not coloured[95:].any()


def test_clothing_is_orange_and_maps_rise_in_brightness() -> None:
    photo = Image.new("RGB", (40, 80), (10, 200, 30))
    mask = np.ones((8, 4), np.uint8)
    mask[:, :2] = 0
    tinted = np.asarray(pictures.tinted(photo, mask)).astype(int)
    assert (tinted[:, 20:, 0] == tinted[:, 20:, 2]).all()  # grey
    assert (tinted[:, :20, 0] > tinted[:, :20, 2] + 100).all()
    rising = pictures.overlaid(photo, np.linspace(0.4, 0.6, 10)[None].repeat(4, 0), 0.4, 0.6).convert("L")
    assert (np.diff(np.asarray(rising)[40].astype(int)) >= 0).all()


@pytest.mark.usefixtures("no_networks")
def test_what_is_missing_is_said_in_its_place(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_models.write_workdir(tmp_path / "bare", tiny_data, "csa_att,debug")
    assert report.main([str(folder), "--images=0"]) == 0
    assert "note: no results yet" in capsys.readouterr().err
    text = Page((folder / "report.html").read_text()).text
    for words in (
        "No results yet",
        "No curves: there is no student/metrics.jsonl",
        "Checkpoints but no metrics.jsonl",
        "Not part of this configuration",
        "--images leaves no room",
        "Stream: body",
    ):
        assert words in text, words
    assert "there is no teacher/metrics.jsonl" not in text  # which this configuration has none of
    shutil.rmtree(folder / "student")
    assert report.main([str(folder)]) == 0
    text = Page((folder / "report.html").read_text()).text
    assert text.count("Not available: no checkpoints in") == 4
    assert "There are no checkpoints." in text


def test_a_folder_that_is_a_number_is_called_with_the_one_above(tmp_path: Path) -> None:
    assert short_name(tmp_path / "csa_att" / "0") == "csa_att/0"
    assert short_name(tmp_path / "run-3") == "run-3"


@pytest.mark.usefixtures("no_networks")
def test_a_run_that_has_only_its_teacher_shows_the_teacher(tiny_data: Path, tmp_path: Path) -> None:
    folder = small_models.write_workdir(tmp_path / "begun", tiny_data, "deskpro_star,debug")
    shutil.rmtree(folder / "student")
    assert report.main([str(folder), "--images=40"]) == 0
    text = Page((folder / "report.html").read_text()).text
    assert "the student phase has no checkpoint yet" in text
    assert "Stream: face" in text


@pytest.mark.usefixtures("no_networks")
def test_converted_weights_name_their_dataset(
    trained: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "student" / "checkpoints", tmp_path / "student" / "checkpoints")
    model = json.loads((trained / "config.json").read_text())["model"]
    record = {"source": "a.pth", "model": model, "preprocessing": {"body_size": [64, 32]}}
    (tmp_path / "conversion.json").write_text(json.dumps(record))
    assert report.main([str(tmp_path)]) == 0
    assert "nothing says on which dataset" in capsys.readouterr().err
    assert report.main([str(tmp_path), "--dataset=synthetic_tiny", f"--data-dir={tiny_data}"]) == 0
    text = Page((tmp_path / "report.html").read_text()).text
    assert "converted from a.pth" in text
    assert "these are converted weights, which no configuration here was trained with" in text
    assert "Best average precision" in text


@pytest.mark.usefixtures("no_networks")
def test_stream_and_protocol_can_be_chosen_and_wrong_ones_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "page.html"
    assert report.main([str(trained), "--stream=body", "--protocol=cc", f"--out={out}", "--images=60"]) == 0
    assert "Stream: body. Protocol: cc (clothes-changing" in Page(out.read_text()).text
    capsys.readouterr()
    for arguments, words in (
        (["--protocol=generl"], "did you mean general"),
        (["--dataset=celb"], "did you mean"),
        ([f"--data-dir={tmp_path}"], "dataset synthetic_tiny is not in"),
        ([f"--compare={tmp_path / 'none'}"], "no workdir at"),
        ([f"--out={tmp_path}"], "is a folder; --out takes an HTML file"),
    ):
        assert report.main([str(trained), f"--out={out.with_name('other.html')}", *arguments]) == 2, words
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert words in err
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_without_its_packages_the_error_names_the_extra(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("jinja2", "matplotlib"):
        with mock.patch.dict("sys.modules", {package: None}):
            assert report.main([str(trained), "--quick"]) == 2
        assert "pip install 'deskpro_jax[report]'" in capsys.readouterr().err


def test_the_command_writes_what_files_say_and_refuses_no_workdir(trained: Path, tmp_path: Path) -> None:
    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "deskpro_jax.report", *map(str, arguments)]
        return subprocess.run(words, cwd=runs.ROOT, capture_output=True, text=True, timeout=300)

    found = run(tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert re.fullmatch(r"error: .* is not a workdir: .*\n", found.stderr)
    out = tmp_path / "quick.html"
    found = run(trained, "--quick", "--out", out)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(f"{out}: 0 pictures, ")
    assert "Left out: the page was asked for without it (--quick)." in out.read_text()
