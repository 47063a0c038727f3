"""Photos become masks, faces and a table, stage by stage, whatever happens to the process meanwhile."""

from __future__ import annotations

import builtins
import io
import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import runs
import standins
import torch_files
from data_prep import plan, prepare
from data_prep.detection import person
from data_prep.photos import find_photos
from data_prep.records import StageRecords
from data_prep.restoration.align import align, lanczos
from deskpro_jax.data.image_report import KINDS
from deskpro_jax.data.images import UnreadableError, read_pixels
from deskpro_jax.data.schema import LIP
from deskpro_jax.data.synthetic import generate
from deskpro_jax.errors import InputError

COUNT = 200  # photos: four chunks
SCRIPT = Path(standins.__file__)
OFFICIAL = SCRIPT.parents[2] / "shared" / "weights" / "retinaface_mobilenet0.25_Final.pth"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    standins.draw_photos(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that nothing interrupted; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("whole")
    assert standins.run(standins.flags(folder, photos, folder / "out")) == 0
    return folder / "out"


def table(out: Path) -> dict[str, dict[str, Any]]:
    return {row["image"]: row for row in pyarrow.parquet.read_table(out / "images.parquet").to_pylist()}


def few(folder: Path, count: int = 12) -> Path:
    standins.draw_photos(folder, count)
    return folder


def start(at: str, arguments: list[str], devices: int = 1) -> tuple[int, str]:
    command, env = [sys.executable, str(SCRIPT), at, *arguments], runs.environment(devices)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


def test_every_photo_gets_its_files_and_its_row(photos: Path, whole: Path) -> None:
    rows = table(whole)
    assert list(rows) == find_photos(photos)
    faces = 0
    for name, row in rows.items():
        with Image.open(photos / name) as photo:
            size = photo.size
        assert (row["width"], row["height"]) == size
        assert row["status"] == "ok"
        with Image.open(whole / "parts" / f"{row['image_id']}.png") as parts:
            assert (parts.mode, parts.size) == ("L", size)
        files = [whole / tree / f"{row['image_id']}.png" for tree in ("face", "restored_face")]
        has_head = int(Path(name).stem) % 3 > 0
        assert [file.exists() for file in files] == [has_head] * 2
        assert row["has_face"] == has_head
        assert len(row["boxes"]) == 1 + (np.mean(read_pixels(photos / name)[4:18, 10:22]) > 5)
        faces += has_head
        if has_head:
            assert row["box"] == [8, 2, 24, 20]
            assert row["face_height"] == 18
            assert row["landmarks"][:4] == [12, 8, 20, 8]
            assert row["score"] == max(box[4] for box in row["boxes"])
    assert 0 < faces < COUNT


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the published weights are not here")
def test_published_weights_find_the_faces_of_drawn_people(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    drawn = list(itertools.islice(generate.generate("tiny", 0), 10))
    for _, example in drawn:
        (tmp_path / "photos" / f"{example.image_id}.jpg").write_bytes(example.body)
    arguments = [f"--images={tmp_path / 'photos'}", f"--out={tmp_path / 'out'}", f"--detector={OFFICIAL}"]
    assert prepare.main([*arguments, "--restorer=lanczos"]) == 0
    rows = table(tmp_path / "out")
    found = 0
    for _, example in drawn:
        row = rows[f"{example.image_id}.jpg"]
        if not row["has_face"]:
            continue
        found += 1
        assert example.parts is not None
        with Image.open(io.BytesIO(example.parts)) as image:
            y, x = np.nonzero(np.asarray(image) == LIP.labels.index("face"))
        left, top, right, bottom = row["box"]
        assert left < x.mean() < right
        assert top < y.mean() < bottom
        with Image.open(tmp_path / "out" / "face" / f"{example.image_id}.png") as face:
            assert face.size == (256, 256)
    assert found >= 6


def test_the_low_resolution_face_is_what_the_restorer_saw(photos: Path, whole: Path) -> None:
    row = next(row for row in table(whole).values() if row["has_face"])
    face, restored = (Image.open(whole / tree / f"{row['image_id']}.png") for tree in ("face", "restored_face"))
    assert face.mode == restored.mode == "RGB"
    photo, points = read_pixels(photos / row["image"]), np.reshape(row["landmarks"], (5, 2))
    np.testing.assert_array_equal(np.asarray(face), align(photo, points, standins.FACE_SIZE))
    shifted = np.minimum(np.asarray(face).astype(int) + 9, 255)
    np.testing.assert_array_equal(np.asarray(restored), shifted)


def test_the_settings_tell_what_made_the_files(whole: Path) -> None:
    settings = json.loads((whole / "prepare.json").read_text())
    assert settings["label_scheme"] == "lip"
    assert settings["restored"] == f"GPEN-BFR-{standins.FACE_SIZE}"
    assert settings["masks"].startswith("SCHP, lip labels")
    assert "RetinaFace mobilenet0.25" in settings["faces"]
    rows = list(table(whole).values())
    for network, column in (("parser", "parser"), ("detector", "detector"), ("restorer", "restorer")):
        assert settings[network]["file"] == network
        assert {row[column] for row in rows if row["has_face"]} == {settings[network]["sha256"]}
        assert len(settings[network]["sha256"]) == 64
    assert {"jax", "numpy", "pillow"} <= settings["versions"].keys()
    assert set(settings["stages"]) == {"parse", "detect", "restore"}


def test_killed_runs_end_with_the_same_bytes(photos: Path, whole: Path, tmp_path: Path) -> None:
    arguments = standins.flags(tmp_path, photos, tmp_path / "out")
    for at in ("1", "120", "90", "150"):
        code, err = start(at, arguments)
        assert code == -signal.SIGKILL, err
        assert list((tmp_path / "out" / ".partial").iterdir())
    code, err = start("0", arguments)
    assert code == 0, err
    found, expected = standins.snapshot(tmp_path / "out"), standins.snapshot(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_sigterm_stops_cleanly_and_the_same_command_goes_on(photos: Path, whole: Path, tmp_path: Path) -> None:
    arguments = standins.flags(tmp_path, photos, tmp_path / "out")
    code, err = start("term:100", arguments)
    assert code == 1
    assert "SIGTERM: stopped in stage parse; the same command goes on" in err
    assert "Traceback" not in err
    out = tmp_path / "out"
    assert not (out / ".partial").exists()
    assert json.loads((out / "prepare.json").read_text())["finished"] == []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert 100 <= len(before) < COUNT
    code, err = start("0", arguments, devices=3)  # three devices, batches of six: numbers that do not depend on it
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in before} == before  # what was whole is not made again
    found, expected = standins.snapshot(out), standins.snapshot(whole)
    assert found == expected


def test_a_finished_run_does_nothing_more(photos: Path, whole: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.png")}
    with mock.patch.object(prepare, "run_stage", wraps=prepare.run_stage) as stages:
        assert standins.run(standins.flags(tmp_path, photos, whole)) == 0
    assert stages.call_count == 3
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.png")} == before


def test_each_stage_alone_ends_with_the_same_bytes(photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = standins.flags(tmp_path, photos, out)
    for stage, there in (("parse", ["parts"]), ("detect", ["parts"]), ("restore", ["face", "parts", "restored_face"])):
        assert standins.run([*arguments, f"--stages={stage}"]) == 0
        assert sorted(p.name for p in out.iterdir() if p.is_dir() and p.name != "records") == there
        assert len(table(out)) == COUNT
    assert standins.snapshot(out) == standins.snapshot(whole)


def test_restoring_needs_detection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = standins.flags(tmp_path, few(tmp_path / "photos"), tmp_path / "out")
    assert standins.run([*arguments, "--stages=parse,restore"]) == 2
    assert "stage restore needs stage detect" in capsys.readouterr().err


def test_unreadable_photos_are_listed_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = few(tmp_path / "photos")
    whole_file = (images / "a" / "0000.jpg").read_bytes()
    (images / "a" / "0000.jpg").write_bytes(whole_file[: len(whole_file) // 2])
    (images / "b" / "text.png").write_text("no image")
    (images / "empty.jpeg").touch()
    (images / "notes.txt").write_text("not listed")
    out = tmp_path / "out"
    arguments = standins.flags(tmp_path, images, out)
    assert standins.run(arguments) == 1
    err = capsys.readouterr().err
    assert "error: 3 photos could not be used" in err
    for line in (
        "a/0000.jpg: is not a readable image, it ends before its last pixel",
        "b/text.png: is not a readable image (none of JPEG",
        "empty.jpeg: is not a readable image, it has no bytes or no pixels",
        "1 other file was passed over: 1 .txt",
    ):
        assert line in err
    assert "Traceback" not in err
    rows = table(out)
    assert sum(row["status"] == "ok" for row in rows.values()) == 11
    bad = rows["empty.jpeg"]
    assert (bad["status"].partition(" (")[0], bad["has_parts"], bad["has_face"], bad["box"], bad["width"]) == (
        (KINDS["zero_size"].text, False, False, None, None)
    )
    assert len(list(out.rglob("parts/*/*.png"))) == 11
    assert standins.run(arguments) == 1  # still there
    capsys.readouterr()
    (images / "a" / "0000.jpg").write_bytes(whole_file)
    (images / "b" / "text.png").unlink()
    standins.draw_photo(1).save(images / "empty.jpeg")
    assert standins.run(arguments) == 0
    rows = table(out)
    assert len(rows) == 13
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert (out / "restored_face" / "empty.png").exists()


def test_photos_may_be_added_but_not_exchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = few(tmp_path / "photos"), tmp_path / "out"
    arguments = standins.flags(tmp_path, images, out)
    assert standins.run(arguments) == 0
    before = standins.snapshot(out / "face")
    standins.draw_photo(1).save(images / "a" / "0000 new.png")
    (images / "b" / "0001.png").unlink()
    assert standins.run(arguments) == 0
    rows = table(out)
    assert "a/0000 new.png" in rows
    assert "b/0001.png" not in rows
    assert len(rows) == 12
    assert before.items() <= standins.snapshot(out / "face").items()
    other = few(tmp_path / "other" / "deeper")
    assert standins.run(standins.flags(tmp_path, other.parent, out)) == 2
    assert "was made from other photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["--score=0.25"], ["detect.score: 0.5 there, 0.25 now", "restore.faces.score"]),
        (["--enlarge=3"], ["detect.enlarge: 'auto' there, 3.0 now"]),
        (["--restorer=lanczos"], ["restore.restored: 'GPEN-BFR-64' there, 'lanczos' now"]),
        (["--parser={detector}"], ["parse.checkpoint: "]),
    ],
)
def test_other_settings_are_refused_with_both_values(
    photos: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: list[str], words: list[str]
) -> None:
    before = standins.snapshot(whole)
    arguments = standins.flags(tmp_path, photos, whole)
    given = [flag.format(detector=tmp_path / "detector") for flag in changed]
    assert standins.run([*arguments, *given]) == 2
    err = capsys.readouterr().err
    assert "was started with other settings" in err
    assert all(word in err for word in words), err
    assert standins.snapshot(whole) == before


def test_a_checkpoint_may_be_called_otherwise_and_batches_may_differ(photos: Path, whole: Path, tmp_path: Path) -> None:
    before = standins.snapshot(whole)
    arguments = standins.flags(tmp_path, photos, whole)
    renamed = standins.weights(tmp_path / "renamed", "parser")
    assert standins.run([*arguments, f"--parser={renamed}", "--batch=2", "--workers=1"]) == 0
    assert standins.snapshot(whole) == before


def test_a_stage_without_results_takes_new_settings_and_drops_old_files(tmp_path: Path) -> None:
    images, out = few(tmp_path / "photos"), tmp_path / "out"
    arguments = standins.flags(tmp_path, images, out)
    assert standins.run(arguments) == 0
    faces = standins.snapshot(out / "face")
    for stage in ("detect", "restore"):
        for record in (out / "records" / stage).iterdir():
            record.unlink()
    assert standins.run([*arguments, "--score=0.95"]) == 0
    assert 0 < len(standins.snapshot(out / "face")) < len(faces)
    assert json.loads((out / "prepare.json").read_text())["stages"]["detect"]["score"] == 0.95


def test_lanczos_needs_no_restorer_and_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = few(tmp_path / "photos"), tmp_path / "out"
    detector = standins.weights(tmp_path / "detector", "detector")
    arguments = [f"--images={images}", f"--out={out}", f"--detector={detector}", "--restorer=lanczos"]
    assert standins.run(arguments) == 0
    assert "note: there are no masks yet (--parser makes them); without any, training" in capsys.readouterr().err
    settings = json.loads((out / "prepare.json").read_text())
    assert (settings["restored"], settings["restorer"], settings["label_scheme"]) == (*("lanczos", None, "cloth_mask"),)
    assert settings["masks"] == "none"
    assert settings["finished"] == ["detect", "restore"]
    assert not (out / "parts").exists()
    row = next(row for row in table(out).values() if row["has_face"])
    assert (row["restorer"], row["parser"], row["has_parts"]) == ("lanczos", None, False)
    photo, points = read_pixels(images / row["image"]), np.reshape(row["landmarks"], (5, 2))
    for tree, enlarged in (("face", align), ("restored_face", lanczos)):
        with Image.open(out / tree / f"{row['image_id']}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), enlarged(photo, points, 256))


def test_parts_alone_need_no_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = few(tmp_path / "photos"), tmp_path / "out"
    parser = standins.weights(tmp_path / "parser", "parser")
    assert standins.run([f"--images={images}", f"--out={out}", f"--parser={parser}"]) == 0
    assert {row["detector"] for row in table(out).values()} == {None}
    assert {row["has_parts"] for row in table(out).values()} == {True}
    err = capsys.readouterr().err
    assert "note: there are no faces yet" in err
    assert "no masks" not in err


def test_flags_decide_which_face_is_taken(tmp_path: Path) -> None:
    images, out = few(tmp_path / "photos"), tmp_path / "out"
    detector = standins.weights(tmp_path / "detector", "detector")
    arguments = [f"--images={images}", f"--out={out}", f"--detector={detector}", "--head-bottom=0.9", "--score=0.1"]
    assert standins.run([*arguments, "--enlarge=4"]) == 0
    assert all(row["has_face"] for row in table(out).values())
    assert {row["detector_scale"] for row in table(out).values()} == {4}
    assert {tuple(row["box"]) for row in table(out).values()} == {(8, 2, 24, 20), (10, 40, 20, 50)}


def test_canvases_stay_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    standins.draw_photo(1, (600, 1200)).save(tmp_path / "photos" / "large.png")
    detector = standins.weights(tmp_path / "detector", "detector")
    arguments = [f"--images={tmp_path / 'photos'}", f"--out={tmp_path / 'out'}", f"--detector={detector}"]
    with mock.patch.object(person, "enlarge", wraps=person.enlarge) as enlarge:
        assert standins.run([*arguments, "--enlarge=4"]) == 0
    assert enlarge.call_args.args[1:] == (2048 / 1200, (2048, 1024))
    assert table(tmp_path / "out")["large.png"]["detector_scale"] == pytest.approx(2048 / 1200)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "nothing to do: give --parser, --detector or --restorer"),
        (["--stages=parse"], "stage parse needs --parser"),
        (["--stages=parse,restor"], "--stages has 'restor'; expected some of parse,detect,restore"),
        (["--detector=FILE", "--enlarge=9"], "--enlarge is 9.0; expected auto, or more than 0 and at most 8"),
        (["--detector=FILE", "--enlarge=no"], "--enlarge is 'no'"),
        (["--detector=FILE", "--score=2"], "--score is 2.0; expected a number from 0 to 1"),
        (["--detector=FILE", "--batch=0"], "--batch is 0"),
        (["--restorer=lanczos"], "give --detector"),
        (["--detector=FILE", "--restorer=FILE", "--face-size=512"], "--face-size goes with --restorer lanczos"),
    ],
)
def test_flags_that_do_not_fit_end_with_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    file = standins.weights(tmp_path / "weights", "any")
    given = [flag.replace("FILE", str(file)) for flag in more]
    assert standins.run([f"--images={photos}", f"--out={tmp_path / 'out'}", *given]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_folders_that_do_not_fit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = few(tmp_path / "photos", 3)

    def refused(images: Path, out: Path) -> str:
        assert standins.run(standins.flags(tmp_path, images, out)) == 2
        return capsys.readouterr().err

    assert f"no folder at {tmp_path / 'none'}" in refused(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "holds no photo" in refused(tmp_path / "empty", tmp_path / "out")
    assert "are inside each other" in refused(images, images / "out")
    assert "are inside each other" in refused(images, tmp_path)
    (tmp_path / "taken").mkdir()
    standins.weights(tmp_path / "taken" / "file", "")
    assert "has content, but no prepare.json" in refused(images, tmp_path / "taken")
    Image.new("RGB", (9, 9)).save(images / "a" / "0000.png")
    err = refused(images, tmp_path / "out")
    assert f"{images / 'a/0000.jpg'} and {images / 'a/0000.png'} differ only in their suffix" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--parser", "--detector", "--restorer"])
def test_a_wrong_checkpoint_is_named_by_its_content(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    names = ("conv1.conv.weight", "conv5.conv.weight")
    file = torch_files.save(
        tmp_path / "model.pth", torch_files.torch_zip({name: np.zeros((2, 2), np.float32) for name in names})
    )
    html = standins.weights(tmp_path / "page.pth", "<!doctype html><html>log in</html>")
    detector = [] if flag != "--restorer" else [f"--detector={standins.weights(tmp_path / 'detector', 'any')}"]
    with mock.patch.object(prepare, "load_detector", mock.MagicMock()) if detector else mock.MagicMock():
        for path, words in ((file, "an OSNet network"), (html, "is a web page, not weights")):
            arguments = [f"--images={photos}", f"--out={tmp_path / 'out'}", f"{flag}={path}", *detector]
            assert prepare.main(arguments) == 2
            err = capsys.readouterr().err
            assert str(path) in err
            assert words in err
    assert not (tmp_path / "out").exists()


def test_without_pyarrow_the_error_names_the_extra(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str, *args: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(f"No module named {name!r}")
        return found(name, *args)

    found: Callable[..., Any] = builtins.__import__
    with mock.patch.object(builtins, "__import__", missing):
        assert standins.run(standins.flags(tmp_path, photos, tmp_path / "out")) == 2
    assert "pip install 'deskpro_jax[prep]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_process_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = few(tmp_path / "photos", 3), tmp_path / "out"
    arguments = standins.flags(tmp_path, images, out)
    assert standins.run(arguments) == 0
    with StageRecords(out):
        assert standins.run(arguments) == 1
    assert "another run is at work" in capsys.readouterr().err
    assert standins.run(arguments) == 0


def test_the_disk_being_full_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = few(tmp_path / "photos")

    def full(records: StageRecords, path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with mock.patch.object(StageRecords, "write_file", full):
        assert standins.run(standins.flags(tmp_path, images, tmp_path / "out")) == 1
    assert "error: [Errno 28] No space left on device" in capsys.readouterr().err
    assert threading.active_count() < 20
    assert standins.run(standins.flags(tmp_path, images, tmp_path / "out")) == 0


def test_photos_are_found_at_any_depth_through_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    for name in ("b.JPG", "a/c.png", "a/.hidden.png", ".trash/d.png", "a/d.txt"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    (tmp_path / "away" / "e.webp").touch()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "away")
    (tmp_path / "photos" / "a" / "up").symlink_to(tmp_path / "photos")
    assert find_photos(tmp_path / "photos") == ["a/c.png", "b.JPG", "link/e.webp"]


def test_photos_are_read_upright_and_in_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    standins.draw_photo(1, (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_pixels(tmp_path / "turned.jpg").shape == (30, 20, 3)
    for mode in ("L", "RGBA", "P", "CMYK"):
        path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
        Image.new(mode, (8, 10)).save(path)
        assert read_pixels(path).shape == (10, 8, 3)
    Image.new("RGB", (7, 9)).save(tmp_path / "thin.png")
    with pytest.raises(UnreadableError, match=r"a side of under 8 pixels \(7 x 9 pixels\)"):
        read_pixels(tmp_path / "thin.png")
    with pytest.raises(UnreadableError, match="No such file"):
        read_pixels(tmp_path / "none.png")


def test_a_damaged_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = few(tmp_path / "photos", 3), tmp_path / "out"
    arguments = standins.flags(tmp_path, images, out)
    assert standins.run(arguments) == 0
    record = out / "records" / "detect" / "000000.json"
    record.write_text("{")
    assert standins.run(arguments) == 1
    assert f"{record} is damaged" in capsys.readouterr().err
    record.unlink()
    assert standins.run(arguments) == 0


def test_stages_run_in_their_order_whatever_the_list_says() -> None:
    assert plan.plan_stages("restore, parse", {}) == ("parse", "restore")
    with pytest.raises(InputError, match="--stages is empty"):
        plan.plan_stages(",", {})
