"""The benchmarks run, write what they measured, compare it, and a failing one loses its own figures alone."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from benchmarks import (
    checkpoint,
    dataset,
    drawn_photos,
    embedding,
    features,
    figures,
    pipeline,
    registry,
    results,
    run,
    stream,
    table,
    train,
)
from benchmarks.arena import run_race
from benchmarks.races import BEGAN, OURS, Entrant, Race, Settings
from benchmarks.results import Measurement, Report
from deskpro_jax.data.build import list_files
from deskpro_jax.errors import InputError, RunError

QUICK = stream.chosen(True)
STEP: dict[str, Any] = {"phase": "stream", "face": [32, 32], "shape": QUICK, "batch": 4, "dtype": "float32"}


def report(*measurements: Measurement, failures: dict[str, str] | None = None) -> Report:
    machine = {
        "processor": "abacus",
        "cores": 2,
        "memory_bytes": 2**34,
        "accelerators": [],
        "python": "3",
        "versions": {"numpy": "2"},
        "load": [0.1, 0.1, 0.1],
        "date": "2026-01-02T03:04:05+00:00",
        "commit": None,
    }
    return Report(
        machine,
        {"threads": 2, "quick": False},
        measurements,
        results.ratios(measurements, OURS),
        failures or {},
    )


def rates(entrant: str, *samples: float) -> Measurement:
    return Measurement("embedding", "batch 8", entrant, "rate", samples)


@pytest.fixture
def quiet_cache() -> Iterator[None]:
    """Puts jax's compilation cache back as it was."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # else it keeps the folder that it was first used with


def test_the_command_measures_writes_plots_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, image = tmp_path / "now.json", tmp_path / "now.png"
    common = ["evaluation", "--quick", "--threads=1", f"--out={out}"]
    assert run.main([*common, f"--plot={image}"]) == 0
    assert "argsort of every row" in capsys.readouterr().out
    assert image.read_bytes().startswith(b"\x89PNG")
    found = json.loads(out.read_text())
    assert found["failures"] == {}
    assert found["settings"] | {"names": ["evaluation"], "quick": True, "threads": 1} == found["settings"]
    assert set(found["machine"]) >= {"date", "processor", "cores", "versions", "load", "load_after", "commit"}
    ours = {
        (m["case"], m["metric"]): m for m in found["measurements"] if m["entrant"] == OURS and len(m["samples"]) > 1
    }
    times = [m for (_, metric), m in ours.items() if metric == "time"]
    assert len(times) == 3  # from distances, and from features at two sizes
    for entry in times:
        assert entry["range"][0] <= entry["quartiles"][0] <= entry["median"] <= entry["range"][1]
        assert entry["unit"] == "s"
        assert not entry["more_is_better"]
    assert [ratio["over"] for ratio in found["ratios"] if ratio["metric"] == "time"] == ["argsort of every row"]

    assert results.to_json(results.read(out)) == found
    assert table.main([str(out), f"--against={out}"]) == 0
    assert "1.000" in capsys.readouterr().out
    assert table.main([str(out), "--markdown"]) == 0
    assert "| distances 24 x 120 | deskpro_jax |" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["now.json", "now.png"]


def test_methods_are_embedded_and_trained(tmp_path: Path) -> None:
    out = tmp_path / "methods.json"
    arguments = ["methods", "--methods=pcb,osnet", "--quick", "--threads=1", "--torch=none", f"--out={out}"]
    assert run.main(arguments) == 0
    report = json.loads(out.read_text())
    assert report["failures"] == {}
    cases = {(m["case"], m["metric"]) for m in report["measurements"]}
    expected = {f"{name}, {kind}, batch 4" for name in ("pcb", "osnet") for kind in ("embed", "train")}
    assert {case for case, metric in cases if metric == "rate"} == expected
    assert {case for case, metric in cases if metric == "parameters"} == expected


def test_a_failing_benchmark_loses_its_own_figures_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = registry.races("evaluation", Settings(tmp_path, quick=True, threads=1))[-1]
    good = dataclasses.replace(good, entrants=(*good.entrants, Entrant("other", "os:_exit", {"status": 7})))
    raises = Entrant(OURS, "benchmarks.evaluation:score_features", {"size": 0})
    dies = Entrant(OURS, "os:_exit", {"status": 7})
    races = {
        "evaluation": [Race("raises", (raises,), 1), Race("dies", (dies,), 1), good],
        "rerank": [Race("files", (dies,), 0, setup=True), Race("never begun", (raises,), 1)],
    }
    monkeypatch.setattr(registry, "races", lambda name, _: races[name])
    out = tmp_path / "out.json"
    assert run.main(["evaluation", "rerank", f"--out={out}", "--quick"]) == 1
    errors = capsys.readouterr().err
    assert "error: evaluation, raises, deskpro_jax: TypeError" in errors
    assert "error: evaluation, dies, deskpro_jax: ended with exit code 7" in errors
    found = json.loads(out.read_text())
    names = ("evaluation, raises", "evaluation, dies", f"{good.case}, other", "rerank, files")
    assert len(found["failures"]) == len(names)
    assert all(any(name in key for key in found["failures"]) for name in names)
    assert {(m["case"], m["entrant"]) for m in found["measurements"]} == {(good.case, OURS)}


def test_entrants_that_do_different_work_are_not_timed(tmp_path: Path) -> None:
    size = {"queries": 8, "gallery": 40, "way": "ours"}
    function = "benchmarks.evaluation:score_distances"
    entrants = tuple(Entrant(str(n), function, {**size, "identities": n}) for n in (2, 4))
    with pytest.raises(RunError, match="do not do the same work, mAP"):
        run_race("evaluation", Race("same", entrants, 3, agree={"mAP": 1e-6}), Settings(tmp_path), lambda _: None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embeding"], "no benchmark is called 'embeding'; did you mean embedding?"),
        (["xyz"], "There are embedding, train"),
        (["--batches=8,x"], "--batches is '8,x'"),
        (["--phases=students"], "--phases has 'students'"),
        (["--scale=0"], "--scale is 0.0"),
        (["--repeats=0"], "--repeats is 0"),
        (["--threads=4096"], "--threads is 4096"),
        (["--train-batch=7"], "--train-batch is 7"),
        (["--torch=fast"], "--torch has 'fast'"),
        (["--plot=a.jpeg"], "--plot is a.jpeg"),
        (["--out=nowhere/a.json"], "correct --out"),
        (["--against=nowhere.json"], "no file nowhere.json"),
    ],
)
def test_a_wrong_flag_is_named_before_anything_runs(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 0}', '{"format": 1, "machine": {}}'])
def test_a_file_that_is_no_report_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"x\.json"):
        results.read(path)


def test_figures_have_three_digits_and_a_fitting_prefix() -> None:
    assert figures.shown([12.345], "images/s") == "12.3 images/s"
    assert figures.shown([0.0122, 0.0124, 0.0126], "s") == "12.4 (12.3-12.5) ms"
    assert figures.shown([2.5e-5], "s") == "25.0 µs"
    assert figures.shown([3 * 2**20], "B") == "3.00 MiB"
    assert figures.shown([98.7e9], "FLOP/s") == "98.7 GFLOP/s"
    assert figures.shown([1234.5], "images/s") == "1,234 images/s"
    assert figures.shown([0.0], "B") == "0 B"
    assert figures.shown([1.5], "") == "1.50"


def test_ratios_pair_the_rounds() -> None:
    (ratio,) = results.ratios([rates(OURS, 10, 20, 40), rates("torch eager", 5, 10, 10)], OURS)
    assert ratio.samples == (2, 2, 4)
    assert (ratio.over, ratio.metric) == ("torch eager", "rate")
    assert results.ratios([rates(OURS, 10, 20), rates("torch eager", 5)], OURS) == ()


@pytest.mark.parametrize(
    ("now", "verdict"), [((14, 15, 16), "BETTER"), ((5, 6, 7), "WORSE"), ((11, 13, 15), "within"), ((20,), "no spread")]
)
def test_a_comparison_flags_what_is_beyond_the_spread(now: tuple[float, ...], verdict: str) -> None:
    (row,) = table.comparison(report(rates(OURS, *now)), report(rates(OURS, 10, 11, 12), rates("gone", 1))).rows
    assert row[-1].startswith(verdict)
    assert row[-2] == f"{np.median(now) / 11:.3f}"


def test_markdown_says_where_and_what_failed() -> None:
    text = table.markdown(report(rates(OURS, 10, 11, 12), failures={"train, student": "it was killed\n  trace"}))
    assert "| batch 8 | deskpro_jax | 11.0 (10.5-11.5) images/s |" in text
    assert "train, student: not measured, it was killed\n" in text
    assert "abacus, 2 cores of which 2 used, 16 GiB; Python 3, numpy 2; load 0.1 to 0.1; 2026-01-02" in text


def test_every_benchmark_has_races_and_names_functions_that_exist(tmp_path: Path) -> None:
    for quick in (True, False):
        for name in registry.USUAL:
            keys = []
            for race in registry.races(name, Settings(tmp_path, quick=quick, threads=2)):
                assert race.entrants
                for entrant in race.entrants:
                    module, function = entrant.function.split(":")
                    assert callable(getattr(sys.modules[module], function))
                    keys.append((race.case, entrant.name))
            assert len(keys) == len(set(keys))


def test_features_are_unit_parts_that_show_who_it_is() -> None:
    identity = np.arange(60) % 6
    found = features.embeddings(identity, 14 * 64, 0)
    assert np.allclose(np.linalg.norm(found.reshape(60, 14, 64), axis=2), 1, atol=1e-6)
    near = found @ found.T / 14
    same = identity[:, None] == identity[None]
    np.fill_diagonal(same, False)
    assert near[same].mean() > near[~same & ~np.eye(60, dtype=bool)].mean() + 0.02


def test_drawn_photos_are_a_dataset_of_ones_own(tmp_path: Path) -> None:
    drawn_photos.write(tmp_path, 20)
    found = list_files.list_dataset("folder", tmp_path)
    assert [len([s for s in found.sources if s.split == split]) for split in ("train", "query", "gallery")] == [
        16,
        2,
        2,
    ]


def test_dataset_and_pipeline_measure_images_a_second(tmp_path: Path) -> None:
    built = dataset.from_files(str(tmp_path), 20, 0)
    assert next(built) == {}
    assert next(built)["rate"] > 0
    assert list(pipeline.build(str(tmp_path), 60)) == [{}]
    for found in (
        pipeline.batches(str(tmp_path), ["body", "face"], 0.0),
        pipeline.decode(str(tmp_path), ["body", "cloth_mask", "face"], 0.0, "pillow", 2),
        pipeline.decode(str(tmp_path), ["body"], 0.0, "simplejpeg", 1),
    ):
        assert next(found) == {}
        assert next(found)["rate"] > 0


def test_checkpoint_measures_save_and_restore(tmp_path: Path) -> None:
    found = checkpoint.save(str(tmp_path), QUICK)
    assert next(found) == {}
    figures_of_a_round = next(found)
    assert 0 < figures_of_a_round["until returned"] <= figures_of_a_round["time"]
    assert figures_of_a_round["restore"] > 0
    assert figures_of_a_round["size"] > 1e6


@pytest.mark.usefixtures("quiet_cache")
def test_embedding_measures_speed() -> None:
    found: dict[str, Any] = next(rounds := embedding.embed(QUICK, 2, "float32", 0.0))
    assert found["operations"] > 1e6
    figures_of_a_round = next(rounds)
    assert figures_of_a_round["speed"] == pytest.approx(found["operations"] * figures_of_a_round["rate"] / 2)


@pytest.mark.parametrize("phase", train.PHASES)
def test_the_step_of_every_phase_can_be_traced(phase: str) -> None:
    shape = stream.Shape(**QUICK)
    assert train.Step(phase, (32, 32), shape, 4, "float32").operations() > 1e7


@pytest.mark.usefixtures("quiet_cache")
def test_the_training_step_measures_speed_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cheap(*_: object) -> Any:  # the real step takes half a minute to compile, whatever its size
        def step(state: Any, teacher: Any, batch: Any, key: Any) -> Any:
            image = batch["body"].reshape(4, -1) / 255.0
            return state.replace(step=state.step + 1), {"total": (image @ image.T).sum()}

        return step

    monkeypatch.setattr("deskpro_jax.train.step.make_train_step", cheap)
    monkeypatch.setattr(train, "matrix_peak", lambda dtype: 1e9)
    monkeypatch.setenv(BEGAN, "0")
    rounds = train.step(0.0, scratch=str(tmp_path), **STEP)
    found = next(rounds)
    assert found["operations"] == 2 * 4 * 4 * 64 * 32 * 3
    assert found["loss"] > 0
    assert 0 <= found["temporary memory"] < found["program memory"]
    figures_of_a_round = next(rounds)
    assert figures_of_a_round["share of peak"] == pytest.approx(100 * figures_of_a_round["speed"] / 1e9)


@pytest.mark.usefixtures("quiet_cache")
def test_pytorch_embeds_and_trains_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="PyTorch is compared with where it is installed")
    from benchmarks import torch_forms

    monkeypatch.setattr(train, "matrix_peak", lambda dtype: 1e9)
    monkeypatch.setenv(BEGAN, "0")
    scratch = str(tmp_path)
    next(stream.write(scratch, QUICK))
    arguments = (scratch, QUICK, 4, "float32", 1, 0.0)
    assert next(torch_forms.embed("channels-last", *arguments))["largest difference"] < torch_forms.TOLERANCE
    theirs = next(torch_forms.train("eager", *arguments))["loss"]
    ours = next(train.step(0.0, scratch=scratch, **STEP))["loss"]
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_without_jax_in_the_parent(tmp_path: Path) -> None:
    # The parent would hold memory of an accelerator, and its size would count for the entrants it starts.
    code = "import sys, benchmarks.run, benchmarks.registry as r; from benchmarks.races import Settings; "
    code += "[r.races(n, Settings(None, quick=True)) for n in r.USUAL]; print('jax' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"
