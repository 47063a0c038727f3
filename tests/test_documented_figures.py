"""The figures of README and docs stand between markers, are the same everywhere, and come from finished runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import runs
from benchmarks import documented, documented_tables, marked
from deskpro_jax.errors import InputError, MissingInputError

PAGE = "before\n<!-- figures: demo cc -->\n\nold\n\n<!-- end -->\nafter\n<!-- figures: other -->\n<!-- end -->\n"


def test_the_text_of_a_block_is_replaced_and_nothing_else() -> None:
    assert marked.blocks(PAGE, "page") == {"demo cc": "\nold\n\n", "other": ""}
    assert marked.replace(PAGE, {}) == PAGE
    once = marked.replace(PAGE, {"demo cc": "new \\1"})
    assert once == PAGE.replace("old", "new \\1")
    assert marked.replace(once, {"demo cc": "new \\1"}) == once
    assert "-->\n\nmore\n\n<!-- end -->" in marked.replace(PAGE, {"other": "more"})


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("<!-- figures: a -->\ntext\n", "'<!-- end -->' has to follow"),
        ("<!-- figures: a -->\n<!-- figures: b -->\n<!-- end -->\n", "'<!-- end -->' has to follow"),
        ("text\n<!-- end -->\n", "'<!-- end -->' has to follow"),
        ("<!-- figures: a -->\n<!-- end -->\n" * 2, "two blocks are called 'a'"),
    ],
)
def test_markers_that_do_not_fit_name_the_page(broken: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"page: .*{reason}"):
        marked.blocks(broken, "page")


def finished(folder: Path, row: str = "", value: float = 0.5) -> Path:
    """Writes what a finished run leaves of its results."""
    run = folder / row / "0" if row else folder
    (run / "student").mkdir(parents=True)
    streams = {"face": value, "body": value / 2, "both": value + 0.1}
    record = {
        "results": [
            {"protocol": protocol, "stream": stream, "mAP": one, "R-1": one, "R-5": one}
            for protocol in ("general", "cc")
            for stream, one in streams.items()
        ],
        "baselines": [{"protocol": "general", "stream": "raw pixels", "map": 0.031, "ranks": {"R-1": 0.04}}],
        "versions": {"python": "3.11.7", "jax": "0.10.2", "deskpro_jax": "0.2.0"},
        "devices": ["cpu:cpu"],
        "date": "2026-11-28T10:07:09+00:00",
    }
    (run / "results.json").write_text(json.dumps(record))
    (run / "results.md").write_text("title\n\n| a | b |\n\n- general: a rule\n- face: a sentence.\n- both: another.\n")
    (run / "config.json").write_text("{}")
    start = 1795860000  # 2026-11-28T10:00:00
    (run / "student/metrics.jsonl").write_text(json.dumps({"step": 1, "time": start + 60}) + "\n")
    os.utime(run / "config.json", (start, start))
    return folder


def test_a_demo_gives_tables_sentences_and_machine(tmp_path: Path) -> None:
    texts = documented_tables.of_demo(finished(tmp_path))
    assert texts["demo"] == "| a | b |"
    assert texts["demo sentences"] == "- face: a sentence.\n- both: another."
    assert texts["demo general"].splitlines()[2:] == [
        "| face | 50.0 | 50.0 | 50.0 | - | - |",
        "| body | 25.0 | 25.0 | 25.0 | - | - |",
        "| both | 60.0 | 60.0 | 60.0 | - | - |",
        "| raw pixels | 3.1 | 4.0 | - | - | - |",
    ]
    assert "raw pixels" not in texts["demo cc"]
    assert texts["demo baselines"].splitlines()[2:] == ["| raw pixels | 3.1 | 4.0 | - | - | - |"]
    assert texts["demo machine"].endswith(
        "(Python 3.11.7, jax 0.10.2, deskpro_jax 0.2.0, 2026-11-28), in 7 minutes 9 seconds."
    )
    os.utime(tmp_path / "config.json")  # a run that went on later
    assert documented_tables.of_demo(tmp_path)["demo machine"].endswith("2026-11-28).")
    with pytest.raises(MissingInputError):
        documented_tables.of_demo(tmp_path / "student")
    (tmp_path / "results.md").write_text("title\n\n| a | b |\n\n- general: a rule\n")
    with pytest.raises(InputError, match="no sentences"):
        documented_tables.of_demo(tmp_path)


def test_an_ablation_gives_its_table_and_its_findings(tmp_path: Path) -> None:
    for row, value in (("baseline", 0.2), ("csa_att", 0.3)):
        finished(tmp_path, row, value)
    texts = documented_tables.of_ablation(tmp_path)
    assert texts["ablation cc"].splitlines()[2:] == [
        "| `baseline` | 1 (baseline) | 30.0 | 30.0 | 32.9 | 18.8 |",
        "| `csa_att` | 3 | 40.0 | 40.0 | 37.2 | 20.3 |",
    ]
    assert texts["ablation findings cc"] == (
        "- CSA + L_att above the baseline: holds (mAP: csa_att 40.0; baseline 30.0; in 1 of 1 seeds)"
    )
    assert texts["ablation machine"].startswith("2 runs, on ")
    with pytest.raises(MissingInputError, match="no finished run"):
        documented_tables.of_ablation(tmp_path / "csa_att")


def test_pages_are_filled_and_an_unknown_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(PAGE)
    names = documented.fill(tmp_path, {"demo cc": "table"}, {"picture.png": b"png"})
    assert names == {"demo cc", "other"}
    assert "\n\ntable\n\n" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "picture.png").read_bytes() == b"png"
    with pytest.raises(InputError, match=r"README\.md: no run has figures 'demo cc'; expected one of demo general"):
        documented.fill(tmp_path, {"demo general": "table"}, {})


def test_the_pages_tell_the_same_figures() -> None:
    pages = {name: marked.read(runs.ROOT / name) for name in documented.PAGES if (runs.ROOT / name).exists()}
    readme = pages["README.md"]
    assert {"demo general", "demo machine", "demo sentences", "demo pictures"} <= readme.keys()
    for name, blocks in pages.items():
        for block in blocks.keys() & readme.keys():
            assert blocks[block].strip() == readme[block].strip(), f"{name}: {block}"
    whole = pages["docs/quick_start.md"]["demo"]
    for line in readme["demo general"].strip().splitlines()[2:]:
        assert f"| general {line.rstrip('|').rstrip()} |" in whole


def test_a_notebook_keeps_its_form(tmp_path: Path) -> None:
    page = runs.ROOT / "docs/notebook.ipynb"
    assert marked.written(page, {}) == page.read_text(encoding="utf-8")
    assert "new table\n" in json.loads(marked.written(page, {"demo general": "new table"}))["cells"][0]["source"]
