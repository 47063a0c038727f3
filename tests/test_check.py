"""A check names every file and label that is wrong, shows examples, and ends with "usable" or what to fix."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from author_trees import CELEB, LTCC, TREES, Photo, draw, encode, write, write_manifest, write_parts
from corrupted import corrupted
from data_prep import check
from data_prep.checking import examine, recognise, sheet
from deskpro_jax.data.build import builder, prepared_examples
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.datasets import celeb_light, ltcc
from deskpro_jax.data.datasets.spec import Size
from deskpro_jax.data.image_report import MAX_PIXELS
from deskpro_jax.data.records import Records
from deskpro_jax.errors import InputError, MissingInputError

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in an empty folder; returns the exit code and the lines of its output, or of its error."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def command(folder: Path, *more: str) -> tuple[int, list[str]]:
        code = check.main([str(folder), "--workers", "0", *more])
        printed = capsys.readouterr()
        return code, (printed.out or printed.err).splitlines()

    return command


def built(name: str, folder: Path, **options: object) -> Path:
    """Builds the tree of a dataset."""
    write(name, folder / "raw")
    quiet = {"allow_different_size": True, "warn": lambda text: None}
    return builder.build(name, folder / "data", folder / "raw", **(quiet | options))  # type: ignore[arg-type]


def row(lines: list[str], split: str) -> list[str]:
    """Returns the figures of a split in the table of counts."""
    return next(line for line in lines if line.startswith(f"{split} ")).split()[1:]


def below(lines: list[str], head: str) -> list[str]:
    """Returns the lines that are indented under a head."""
    start = next(i for i, line in enumerate(lines) if line.strip().startswith(head))
    depth = len(lines[start]) - len(lines[start].lstrip())
    found = []
    for line in lines[start + 1 :]:
        if len(line) - len(line.lstrip()) <= depth:
            break
        found.append(line.strip())
    return found


@pytest.mark.parametrize("name", sorted(TREES))
def test_a_sound_tree_is_recognised_counted_and_usable(name: str, tmp_path: Path, run: Run) -> None:
    raw = tmp_path / ("Celeb-reID-light" if name == "celeb_light" else "data")
    tree = write(name, raw)
    code, lines = run(raw)
    assert (code, lines[-1]) == (0, "usable")
    assert lines[0].startswith(f"{raw}: {name}, {'manifest' if name == 'folder' else 'authors'}")
    assert (lines[-2] == "to be built with --allow-different-size") == (name != "folder")
    for split in ("train", "query", "gallery"):
        members = [photo for photo in tree.values() if photo.split == split]
        outfits = {(photo.identity, photo.clothes) for photo in members if photo.clothes >= 0}
        people, cameras = ({getattr(photo, field) for photo in members} - {-1} for field in ("identity", "camera"))
        expected = [len(members), len(people), len(cameras), len(outfits), 0, 0, 0]
        assert row(lines, split) == list(map(str, expected))
    assert (tmp_path / "here" / f"check-{name}.png").exists()
    folder = built(name, tmp_path / "build")
    code, lines = run(folder)
    assert (code, lines[0], lines[-1]) == (0, f"{folder}: {name}, built", "usable")


def test_a_thousand_corrupted_files_are_each_reported(tmp_path: Path, run: Run) -> None:
    write("celeb", tmp_path / "raw")
    bad = []
    for number, content in enumerate(corrupted(1000, seed=3)):
        folder = ("train", "query", "gallery")[number % 3]
        file = tmp_path / "raw" / folder / f"{100 + number // 20}_{number % 20 + 1}_0.{('jpg', 'png')[number % 2]}"
        file.write_bytes(content)
        bad.append(str(file))
    code, lines = run(tmp_path / "raw", "--dataset", "celeb", "--json", "found.json")
    assert code == 1
    start = lines.index("not usable, 1,000 things to fix:")
    reported = [line.strip().split(" ", 1)[0] for line in lines[start:] if line.startswith("    ")]
    assert sorted(reported) == sorted(bad)
    found = json.loads((tmp_path / "here" / "found.json").read_text())
    assert not found["usable"]
    assert sorted(problem["file"] for problem in found["problems"]) == sorted(bad)
    kinds = {problem["kind"] for problem in found["problems"]}
    assert kinds >= {"truncated", "damaged", "unreadable", "zero_size", "too_small", "bit_depth"}
    assert sum(image["usable"] for image in found["images"]) == len(CELEB)


def odd_images() -> dict[str, tuple[str, bytes]]:
    """Returns a file name and content for each kind of odd image."""
    photo = draw(Photo("train", "x", 50, 1, -1))
    cmyk, turned, frames, huge = (io.BytesIO() for _ in range(4))
    photo.convert("CMYK").save(cmyk, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.rotate(1).save(turned, "JPEG", exif=exif)
    photo.save(frames, "GIF", save_all=True, append_images=[photo.rotate(90)])
    Image.new("1", (8192, MAX_PIXELS // 8192 + 1)).save(huge, "PNG")
    return {
        "grey": ("50_1_0.png", encode(photo.convert("L"), ".png")),
        "CMYK": ("50_2_0.jpg", cmyk.getvalue()),
        "EXIF-rotated": ("50_3_0.jpg", turned.getvalue()),
        "transparent": ("50_4_0.png", encode(photo.convert("RGBA"), ".png")),
        "animated": ("50_5_0.gif", frames.getvalue()),
        "huge": ("50_6_0.png", huge.getvalue()),
        "zero size": ("50_7_0.jpg", b""),
        "truncated": ("50_8_0.png", encode(photo.rotate(2), ".png")[:-30]),
        "unreadable": ("50_9_0.jpg", b"<html>not found</html>"),
    }


def test_every_kind_of_odd_image_is_told_with_its_name(tmp_path: Path, run: Run) -> None:
    write("celeb", tmp_path / "raw")
    for name, content in odd_images().values():
        (tmp_path / "raw" / "train" / name).write_bytes(content)
    code, lines = run(tmp_path / "raw", "--dataset", "celeb")
    assert code == 1
    verdict = lines.index("not usable, 4 things to fix:")
    for kind, (name, _) in odd_images().items():
        found = next(i for i, line in enumerate(lines) if line.startswith(f"  {kind} (1"))
        fatal = kind in ("huge", "zero size", "truncated", "unreadable")
        assert (found > verdict) == fatal, kind
        assert f"train/{name}" in (lines[found + 1] if fatal else lines[found])
        assert lines[found].startswith(f"  {kind} (1):" if fatal else f"  {kind} (1, ")
    (tmp_path / "raw/query/1_1_0.jpg").unlink()
    (tmp_path / "raw/query/1_1_0.jpg").mkdir()
    (tmp_path / "raw/gallery/holiday.jpg").write_bytes(b"")
    code, lines = run(tmp_path / "raw", "--dataset", "celeb")
    names = below(lines, "names and folders that do not match (2)")
    assert len(names) == 2
    assert "query/1_1_0.jpg: this is a folder" in names[1]
    assert "gallery/holiday.jpg: the name does not match" in names[0]


def test_bad_masks_and_faces_are_named_and_missing_ones_counted(tmp_path: Path, run: Run) -> None:
    tree = write("ltcc", tmp_path / "raw")
    write_parts(tree, tmp_path / "parts", without=["test/009_1_c4_000024.png"], faceless=["query/003_1_c1_000010.png"])
    parts = ("--parts", str(tmp_path / "parts"))
    code, lines = run(tmp_path / "raw", *parts)
    assert (code, lines[-1]) == (0, "usable")
    assert row(lines, "gallery") == ["5", "3", "4", "4", "4", "4", "4"]
    assert row(lines, "query") == ["3", "2", "2", "3", "3", "2", "2"]
    assert f"1 image without a mask: {tmp_path}/raw/test/009_1_c4_000024.png" in lines
    assert any(line.startswith("2 images without a face: ") and "003_1_c1_000010" in line for line in lines)
    assert "no image has a mask" not in lines

    wrong = np.full((64, 32), 77, np.uint8)
    (tmp_path / "parts/parts/train/001_1_c1_000001.png").write_bytes(encode(Image.fromarray(wrong), ".png"))
    (tmp_path / "parts/face/train/007_1_c3_000004.png").write_bytes(b"")
    code, lines = run(tmp_path / "raw", *parts)
    assert code == 1
    assert "has label 77, expected 0 to 19" in below(lines, "label maps that do not fit (1)")[0]
    assert "face/train/007_1_c3_000004.png" in below(lines, "zero size (1)")[0]
    assert "no image has a mask" in run(tmp_path / "raw")[1]


def copy(raw: Path, source: str, target: str) -> None:
    shutil.copyfile(raw / source, raw / target)


def test_the_same_bytes_are_found_wherever_they_are(tmp_path: Path, run: Run) -> None:
    raw = tmp_path / "raw"
    write("celeb", raw)
    copy(raw, "train/1_1_0.jpg", "train/1_3_0.jpg")  # within a split, the same person: worth knowing
    code, lines = run(raw, "--dataset", "celeb")
    assert (code, lines[-1]) == (0, "usable")
    (found,) = below(lines, "the same bytes several times within a split (1)")
    assert re.findall(r"train/(\w+)\.jpg \(train, identity 1\)", found) == ["1_1_0", "1_3_0"]

    copy(raw, "train/2_1_0.jpg", "gallery/9_1_0.jpg")
    copy(raw, "query/2_3_0.jpg", "gallery/2_4_0.jpg")
    copy(raw, "gallery/1_10_0.jpg", "gallery/7_1_0.jpg")
    code, lines = run(raw, "--dataset", "celeb")
    assert code == 1
    start = lines.index("not usable, 3 things to fix:")
    (leak,) = below(lines[start:], "LEAK: the same bytes in train and in a test split")
    assert "train/2_1_0.jpg (train, identity 2) = " in leak
    assert leak.endswith("gallery/9_1_0.jpg (gallery, identity 9)")
    (match,) = below(lines[start:], "the same bytes in query and gallery, a false match (1)")
    assert "query/2_3_0.jpg" in match
    (people,) = below(lines[start:], "the same bytes several times within a split (1)")
    assert people.endswith("gallery/7_1_0.jpg (gallery, identity 7): different people by their labels")
    assert below(lines[:start], "the same bytes several times within a split (1)")  # the harmless one, as before


def test_what_its_authors_distribute_is_not_to_be_mended(tmp_path: Path, run: Run, monkeypatch) -> None:
    raw = tmp_path / "raw"
    write("celeb", raw)
    copy(raw, "train/2_1_0.jpg", "gallery/9_1_0.jpg")
    monkeypatch.setattr(check, "differences", lambda *_: [])
    code, lines = run(raw, "--dataset", "celeb")
    assert (code, lines[-1]) == (0, "usable")
    assert below(lines, "LEAK: the same bytes in train and in a test split, scores will be too good, as the authors")


def test_labels_that_collide(tmp_path: Path, run: Run) -> None:
    raw = tmp_path / "raw"
    write("celeb", raw)
    (raw / "train/2_1_0.png").write_bytes(encode(draw(Photo("train", "2_1_0", 2, 9, -1)), ".png"))
    (raw / "gallery/2_2_1.jpg").write_bytes(encode(draw(Photo("gallery", "2_2_1", 2, 9, -1)), ".jpg"))
    code, lines = run(raw, "--dataset", "celeb")
    assert code == 1
    (name,) = below(lines, "names and folders that do not match (1)")
    assert f"train/2_1_0.png: the same image as {raw}/train/2_1_0.jpg" in name
    remarks, warnings = below(lines, "remarks:"), below(lines, "warnings:")
    assert "2 identity numbers are in train and in test: 1, 2; as usual here, they are different people" in remarks[0]
    assert "1 image numbers come twice: identity 2, image number 2 (test)" in warnings

    folder = tmp_path / "own"
    tree = write("folder", folder)
    code, lines = run(folder)
    assert code == 0
    assert any("1 identity numbers are in train and in test: 10; train and test should" in line for line in lines)
    twice = {"anna/door.jpg": tree["anna/door.jpg"], "anna/../anna/door.jpg": tree["anna/yard.jpg"]}
    write_manifest(folder / "manifest.csv", tree | twice)
    code, lines = run(folder)
    assert code == 1 or below(lines, "the same bytes")


def test_what_the_protocols_find_is_told(tmp_path: Path, run: Run) -> None:
    write("ltcc", tmp_path / "raw")
    _, lines = run(tmp_path / "raw")
    assert below(lines, "protocols:") == [
        "general: 3 of 3 queries have a correct gallery image",
        "cc: 2 of 3 queries have a correct gallery image; 1 x all removed by same clothes",
        "sc: 3 of 3 queries have a correct gallery image",
    ]
    for path, photo in LTCC.items():
        if photo.split == "gallery" and photo.identity != 9:
            (tmp_path / "raw" / path).unlink()
    code, lines = run(tmp_path / "raw")
    assert code == 1
    assert "3 x no image of this identity in the gallery" in below(lines, "protocols:")[0]
    assert lines[-1] == "  the labels allow none of the protocols of this dataset (see above)"


def test_a_manifest_with_errors_is_something_to_fix(tmp_path: Path, run: Run) -> None:
    tree = write("folder", tmp_path)
    write_manifest(tmp_path / "manifest.csv", tree | {"nobody.jpg": Photo("test", "nobody", 3, 1, 1)})
    code, lines = run(tmp_path)
    assert code == 1
    assert lines[-4] == "not usable, 1 thing to fix:"
    assert "line 8: split is 'test', expected one of train, query, gallery" in lines[-2]
    assert "line 8: path 'nobody.jpg': no such file" in lines[-1]


def test_prepared_folders_are_recognised_by_their_names(tmp_path: Path, tiny_data: Path, run: Run) -> None:
    examples = [
        (split, example)
        for split in ("train", "query", "gallery")
        for example in Records(tiny_data / "cc_reid" / "synthetic_tiny" / "2.0.0", split)
    ]
    drawn = prepared_examples.write_prepared(
        examples, tmp_path / "drawn", "celeb", prepared_examples.synthetic_origin("tiny", 0)
    )
    code, lines = run(drawn)
    assert (code, lines[0], lines[-1]) == (0, f"{drawn}: synthetic_tiny, prepared folders", "usable")
    sizes = {split: sum(found == split for found, _ in examples) for split in ("train", "query", "gallery")}
    assert {split: int(row(lines, split)[0]) for split in sizes} == sizes
    faces = sum(example.face is not None for split, example in examples if split == "query")
    assert int(row(lines, "query")[5]) == faces > 0

    def renamed(name: str, to: Callable[[int, int, int], str], camera: Callable[[str, int], int]) -> Path:
        few = [(s, e._replace(image_id=to(e.identity, camera(s, i), i))) for i, (s, e) in enumerate(examples)]
        return prepared_examples.write_prepared(few, tmp_path / name, name)

    with_c, without_c = "{:04d}_c{}_{:06d}".format, "{}_{}_{}".format
    for name, to, camera in (
        ("celeb", with_c, lambda split, number: number),
        ("celeb_light", without_c, lambda split, number: 1),
        ("prcc", with_c, lambda split, number: {"train": 3, "query": 2, "gallery": 1}[split]),
    ):
        found = recognise.recognise(renamed(name, to, camera))
        assert (found.name, found.layout) == (name, recognise.PREPARED)
        assert found.guessed.startswith("from the names")


def test_celeb_reid_and_its_light_kind_are_told_apart_by_name_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, expected in (("a", "celeb"), ("Celeb-reID", "celeb"), ("Celeb-reID-light", "celeb_light")):
        write("celeb", tmp_path / "raw" / name)
        assert recognise.recognise(tmp_path / "raw" / name).name == expected
    few = dataclasses.replace(celeb_light.SPEC, sizes=(Size("train", len(CELEB)),))
    monkeypatch.setattr(celeb_light, "SPEC", few)
    found = recognise.recognise(tmp_path / "raw" / "a")
    assert found.name == "celeb_light"
    assert found.guessed == f"from folders, names and its {len(CELEB)} images; celeb is laid out alike"


@pytest.mark.parametrize("name", ["data", "data/cc_reid", "data/cc_reid/ltcc", "data/cc_reid/ltcc/1.0.0"])
def test_a_built_dataset_is_found_from_any_of_its_folders(name: str, tmp_path: Path) -> None:
    folder = built("ltcc", tmp_path)
    expected = recognise.RecognisedFolder(ltcc.SPEC, "ltcc", recognise.BUILT, folder)
    assert recognise.recognise(tmp_path / name) == expected
    with pytest.raises(InputError, match="holds the built dataset ltcc, not celeb"):
        recognise.recognise(tmp_path / name, "celeb")


def test_a_folder_of_several_built_datasets_needs_a_name(tmp_path: Path) -> None:
    for name in ("ltcc", "celeb"):
        built(name, tmp_path)
        shutil.rmtree(tmp_path / "raw")
    with pytest.raises(InputError, match=r"several built datasets \(celeb, ltcc\): name one with --dataset"):
        recognise.recognise(tmp_path / "data")
    assert recognise.recognise(tmp_path / "data", "celeb").name == "celeb"


def test_a_built_dataset_that_changed_is_found_out(tmp_path: Path, run: Run) -> None:
    folder = built("celeb", tmp_path)

    def changed(name: str, how: Callable[[bytes], bytes]) -> tuple[int, list[str]]:
        copied = Path(shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True))
        file = next(copied.glob(name))
        file.write_bytes(how(file.read_bytes()))
        return run(copied, "--no-sheet")

    def flip(content: bytes) -> bytes:
        at = content.index(b"\xff\xd8\xff")  # the first photo
        return content[: at + 9] + bytes([content[at + 9] ^ 16]) + content[at + 10 :]

    code, lines = changed("cc_reid-query.array_record*", flip)
    assert code == 1
    assert re.search(r"query/record \d can't be read .*: build the dataset again", lines[-1])
    code, lines = changed("cc_reid-train.array_record*", lambda content: content[: len(content) // 2])
    assert code == 1
    assert "split 'train'" in lines[-1]
    other = builder.build("celeb", tmp_path / "other", tmp_path / "raw", allow_different_size=True, skip_bad=True)
    metadata = json.loads((other / "metadata.json").read_text())
    metadata["checksums"]["gallery"] = "0" * 64
    code, lines = changed("metadata.json", lambda content: json.dumps(metadata).encode())
    assert (code, "split gallery is not what was built" in lines[-1]) == (1, True)
    code, lines = changed("columns-train.npz", lambda content: content[:-40])
    assert (code, "columns-train.npz has other labels than the records" in lines[-1]) == (1, True)
    for name in ("metadata.json", "features.json"):
        code, lines = changed(name, lambda content: content[:-9])
        assert (code, f"{name} is damaged" in lines[-1]) == (1, True)
    assert run(folder)[0] == 0


def test_the_sheet_is_the_same_for_a_seed_and_shows_mask_and_faces(tmp_path: Path, run: Run) -> None:
    write_parts(write("celeb", tmp_path / "raw"), tmp_path / "parts")
    arguments = (tmp_path / "raw", "--dataset", "celeb", "--parts", str(tmp_path / "parts"))

    def drawn(*more: str) -> np.ndarray:
        _, lines = run(*arguments, "--sheet", "sheet.png", *more)
        assert "examples: sheet.png" in lines
        with Image.open(tmp_path / "here" / "sheet.png") as image:
            return np.asarray(image.convert("RGB"))

    first = drawn()
    np.testing.assert_array_equal(drawn(), first)
    assert not np.array_equal(drawn("--seed", "1"), first)
    one = drawn("--examples", "1")
    left, right = (one[8:264, 8 + i * 136 : 136 + i * 136].astype(int) for i in (0, 1))
    # Upper clothes are rows 16 to 40 of 64, columns 8 to 24 of 32, here four times as large: half of them the tint.
    np.testing.assert_allclose(right[70:150, 40:90], (left[70:150, 40:90] + [255, 0, 60]) / 2, atol=1)
    np.testing.assert_array_equal(right[64, 40:90], np.tile([0, 255, 255], (50, 1)))  # the outline
    np.testing.assert_array_equal(right[:60], left[:60])  # the head is not clothing
    assert (right[-1, [0, 20, -1, -20]] == [255, 255, 0]).all()  # frames of two faces
    assert not any(line.startswith("examples") for line in run(*arguments, "--no-sheet")[1])


def test_images_that_cannot_be_used_are_not_on_the_sheet(tmp_path: Path) -> None:
    write("celeb", tmp_path)
    for name in ("1_1_0", "1_2_0", "2_1_0"):
        (tmp_path / "train" / f"{name}.jpg").write_bytes(b"")
    listing = list_dataset("celeb", tmp_path)
    train = [source for source in listing.sources if source.split == "train"]

    def load(split: str, position: int):
        if position == 0:
            raise RuntimeError(train[0].image_id)
        return check.assemble(train[position], listing.parts_format).example

    shown = sheet.draw_at_random({"train": len(train)}, load, 99, 0)
    assert sorted(example.image_id for _, example in shown) == ["2_2_7", "3_1_0", "3_2_0"]


def test_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("celeb", tmp_path)
    (tmp_path / "gallery/2_2_0.jpg").write_bytes(b"")
    listing = list_dataset("celeb", tmp_path)
    monkeypatch.setattr(examine, "CHUNK", 4)
    monkeypatch.setattr(examine, "_FEW", 0)
    tasks = examine.source_tasks(listing)
    told: list[int] = []
    found = examine.run(tasks, 2, told.append)
    assert found == examine.run(tasks, 0, lambda count: None)
    assert sum(told) == len(found) == len(CELEB)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "nowhere does not exist: correct the path"),
        (["."], "holds nothing; expected a built dataset, prepared folders (imgs/, "),
        (["photo.jpg", "--dataset", "celeb"], "is a file"),
        (["raw", "--dataset", "celebs"], "did you mean celeb"),
        (["raw", "--workers", "-1"], "--workers is -1, expected 0 or more"),
        (["raw", "--examples", "0"], "--examples is 0, expected 1 or more"),
        (["raw", "--sheet", "nowhere/a.png"], "nowhere to write a.png to: make it"),
    ],
)
def test_a_wrong_command_ends_with_one_line_and_code_2(
    arguments: list[str], expected: str, tmp_path: Path, run: Run
) -> None:
    here = tmp_path / "here"
    if arguments != ["."]:
        write("celeb", here / "raw")
        (here / "photo.jpg").write_bytes(b"")
    code, lines = run(Path(arguments[0]), *arguments[1:])
    assert code == 2
    assert lines[0].startswith("error: ")
    assert expected in lines[0]


def test_a_folder_that_is_missing_is_something_to_fix(tmp_path: Path, run: Run) -> None:
    write("ltcc", tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw" / "test")
    code, lines = run(tmp_path / "raw")
    assert code == 1
    assert "dataset ltcc: folder" in lines[-1]
    assert "raw/test is missing" in lines[-1]
    with pytest.raises(MissingInputError):
        recognise.recognise(tmp_path / "absent")
