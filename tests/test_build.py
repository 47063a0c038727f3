"""One command builds each dataset as its authors distribute it, leaves out nothing in silence, goes on when killed."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from author_trees import CELEB, PRCC, PRCC_VAL, TRACKLETS, TREES, Photo, draw, encode, labels, write, write_parts
from configs import base
from corrupted import corrupted
from data_prep import build
from deskpro_jax.data import opening, records
from deskpro_jax.data.build import builder, prepared_examples, shards
from deskpro_jax.data.build.assemble import Assembled
from deskpro_jax.data.build.image_sources import ImageSource, PartsFormat
from deskpro_jax.data.datasets import find
from deskpro_jax.data.load import dataset
from deskpro_jax.data.schema import SPLITS, Example
from deskpro_jax.errors import MissingInputError
from runs import finish, start

ANY_SIZE = "--allow-different-size"


def command(name: str, raw: Path, out: Path, *more: str) -> int:
    """Builds in this process."""
    return build.main(["--dataset", name, "--raw", str(raw), "--out", str(out), "--workers", "0", *more])


def built(name: str, out: Path) -> set[Photo]:
    """Returns the labels in a built dataset."""
    found = set()
    for split in SPLITS:
        s = dataset.load(name, out, split)
        labels = zip(s.identity.tolist(), s.camera.tolist(), s.clothes.tolist(), strict=True)
        found |= {Photo(split, image_id, *row) for image_id, row in zip(s.image_id, labels, strict=True)}
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("name", sorted(TREES))
def test_every_dataset_is_built_with_its_labels_and_parts(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    tree = write(name, raw)
    first, second, *_ = tree
    write_parts(tree, parts, without=[first], faceless=[second])
    assert command(name, raw, tmp_path / "out", "--parts", str(parts), ANY_SIZE) == 0
    assert built(name, tmp_path / "out") == set(tree.values())

    photos = {photo: path for path, photo in tree.items()}
    for split in SPLITS:
        loaded = dataset.load(name, tmp_path / "out", split)
        for i in range(len(loaded)):
            e = loaded[i]
            path = photos[Photo(split, e.image_id, e.identity, e.camera, e.clothes)]
            assert e.tracklet == loaded.tracklet[i] == TRACKLETS.get(name, {}).get(path, -1)
            assert e.body == (raw / path).read_bytes()
            assert loaded.has_mask[i] == (path != first)
            assert loaded.has_face[i] == loaded.has_restored_face[i] == (path not in (first, second))
    metadata = dataset.load(name, tmp_path / "out", "train").metadata
    assert metadata["label_scheme"] == "lip"
    assert (metadata["masks"], metadata["faces"]) == ("drawn by hand", "cut by hand")
    assert {"camera", "clothes", "versions", "checksums", "source"} <= metadata.keys()
    printed = capsys.readouterr().out
    count = {split: [photo for photo in tree.values() if photo.split == split] for split in SPLITS}
    for split in SPLITS:
        assert metadata["sizes"][split]["images"] == len(count[split])
        assert metadata["sizes"][split]["identities"] == len({photo.identity for photo in count[split]})
        assert f"  {split}: {len(count[split])} images of" in printed
    item = tfds.builder_from_directory(records.dataset_path(name, tmp_path / "out")).as_data_source("query")[0]
    assert item["body"].shape == (64, 32, 3)


def test_another_size_is_an_error_unless_allowed_and_then_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("ltcc", tmp_path / "raw")
    assert command("ltcc", tmp_path / "raw", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: dataset ltcc differs in size from what was published:\n  train: 5 images of 2 ident"
    )
    assert "\n    images by identity: 1: 3, 7: 2\n" in error
    assert "\n  query: 3 images of 2 identities; published 493 images" in error
    assert ANY_SIZE in error
    assert not builder.is_built("ltcc", tmp_path / "out")
    assert command("ltcc", tmp_path / "raw", tmp_path / "out", ANY_SIZE) == 0
    assert "  train: 5 images of 2 identities; published 9,576" in capsys.readouterr().err
    differences = dataset.load("ltcc", tmp_path / "out", "train").metadata["size_differences"]
    assert [line.split(":")[0] for line in differences if not line.startswith(" ")] == list(SPLITS)


def test_validation_images_of_prcc_are_added_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("prcc", tmp_path / "raw", val=True)
    assert command("prcc", tmp_path / "raw", tmp_path / "a", ANY_SIZE) == 0
    assert "2 images left out (--with-val adds them)" in capsys.readouterr().err
    assert built("prcc", tmp_path / "a") == set(PRCC.values())
    assert command("prcc", tmp_path / "raw", tmp_path / "a", ANY_SIZE, "--with-val") == 2
    assert "was built without the validation images" in capsys.readouterr().err
    assert command("prcc", tmp_path / "raw", tmp_path / "b", ANY_SIZE, "--with-val") == 0
    assert built("prcc", tmp_path / "b") == set((PRCC | PRCC_VAL).values())


def test_what_is_there_is_not_built_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("folder", tmp_path / "raw")
    assert command("folder", tmp_path / "raw", tmp_path / "out") == 0
    before = files(tmp_path / "out")
    assert command("folder", tmp_path / "raw", tmp_path / "out") == 0
    assert "already, nothing was built" in capsys.readouterr().out
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("given", "name"),
    [("celeb-light", "celeb_light"), ("Celeb-reID-light", "celeb_light"), ("Celeb-reID", "celeb"), ("PRCC", "prcc")],
)
def test_datasets_go_by_their_usual_names(given: str, name: str) -> None:
    assert find.dataset_name(given, "--dataset") == name


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--dataset", "cleb-light"], "--dataset has 'cleb_light': there is no such dataset; did you mean celeb_light"),
        (["--dataset", "market"], "there is no such dataset; correct the name. Known: synthetic_tiny, "),
        (["--dataset", "prcc"], "dataset prcc: data.raw_dir is empty. Get the photos"),
        (["--dataset", "prcc", "--raw", "nowhere"], "folder nowhere/rgb/train is missing"),
        (["--dataset", "folder", "--raw", "nowhere"], "nowhere has no CSV file"),
        (["--dataset", "prcc", "--workers", "-1"], "--workers is -1"),
        (["--dataset", "synthetic_tiny", "--runner", "beam"], "--runner beam builds from files"),
        (["--dataset", "prcc", "--beam-option", "x=y"], "--beam-option is for --runner beam"),
    ],
)
def test_a_wrong_argument_ends_with_a_line_and_code_2(
    arguments: list[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert error in printed
    assert not (tmp_path / "out" / "cc_reid" / "prcc" / "1.0.0").exists()


@pytest.fixture(scope="module")
def ruined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A tree with a thousand corrupted photos beside the sound ones."""
    raw = tmp_path_factory.mktemp("ruined")
    write("celeb", raw)
    bad = []
    for number, content in enumerate(corrupted(1000)):
        folder = ("train", "query", "gallery")[number % 3]
        file = raw / folder / f"{100 + number // 20}_{number % 20 + 1}_0.{('jpg', 'png')[number % 2]}"
        file.write_bytes(content)
        bad.append(file)
    return raw, bad


def test_a_thousand_corrupted_files_are_each_reported_and_none_gets_in(
    ruined: tuple[Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, bad = ruined
    assert command("celeb", raw, tmp_path, ANY_SIZE) == 2
    error = capsys.readouterr().err.split("error: ", 1)[1]
    assert error.startswith("1000 files can't be used:\n")
    assert error.rstrip().endswith("--skip-bad builds without such files")
    listed = {line.split(" ", 3)[2] for line in error.splitlines()[1:-1]}
    assert listed == set(map(str, bad))
    assert not builder.is_built("celeb", tmp_path)

    assert command("celeb", raw, tmp_path, ANY_SIZE, "--skip-bad") == 0
    printed = capsys.readouterr()
    assert printed.err.count("left out: ") == 1000
    assert "1,000 files that can't be used are left out; metadata.json lists them" in printed.out
    assert built("celeb", tmp_path) == set(CELEB.values())
    metadata = dataset.load("celeb", tmp_path, "train").metadata
    assert {line.split(" ", 1)[0] for line in metadata["left_out"]} == set(map(str, bad))


def test_bad_parts_are_left_out_and_their_photos_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    write_parts(write("celeb", raw), parts)
    (parts / "parts/train/1_1_0.png").write_bytes(b"")
    (parts / "face/train/2_1_0.png").write_bytes(encode(draw(CELEB["train/2_1_0.jpg"]), ".png")[:-20])
    (raw / "train/strange.jpg").write_bytes(b"")
    arguments = ("--parts", str(parts), ANY_SIZE)
    assert command("celeb", raw, tmp_path / "out", *arguments) == 2
    assert "3 files can't be used:" in capsys.readouterr().err
    assert command("celeb", raw, tmp_path / "out", *arguments, "--skip-bad") == 0
    loaded = dataset.load("celeb", tmp_path / "out", "train")
    at = {name: index for index, name in enumerate(loaded.image_id)}
    assert len(loaded) == 7
    assert (loaded.has_mask[at["1_1_0"]], loaded.has_face[at["1_1_0"]]) == (False, True)
    assert (loaded.has_face[at["2_1_0"]], loaded.has_restored_face[at["2_1_0"]]) == (False, True)
    assert loaded.has_mask.sum() == 6


def test_a_split_that_is_bad_altogether_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("celeb", tmp_path / "raw")
    for file in (tmp_path / "raw/query").iterdir():
        file.write_bytes(b"")
    assert command("celeb", tmp_path / "raw", tmp_path / "out", ANY_SIZE, "--skip-bad") == 2
    assert "no image of split query can be used, 2 files are bad" in capsys.readouterr().err


def test_checksums_tell_what_no_decoder_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw"
    write("celeb", raw)
    sums = subprocess.run(["sha256sum", *sorted(CELEB)], cwd=raw, capture_output=True, check=True, text=True).stdout
    (raw / "SHA256SUMS").write_text(sums)
    content = bytearray((raw / "train/1_1_0.jpg").read_bytes())
    (raw / "train/1_1_0.jpg").write_bytes(encode(draw(CELEB["train/1_2_0.jpg"]), ".jpg"))  # sound, but another photo
    (raw / "gallery/2_2_0.jpg").unlink()
    assert command("celeb", raw, tmp_path / "out", ANY_SIZE) == 2
    error = capsys.readouterr().err
    assert f"{raw}/train/1_1_0.jpg has another checksum than SHA256SUMS lists" in error
    assert f"{raw}/gallery/2_2_0.jpg: SHA256SUMS lists it, but it does not exist" in error
    (raw / "train/1_1_0.jpg").write_bytes(content)
    (raw / "SHA256SUMS").write_text(sums.replace(sums.splitlines()[-1], "nonsense"))
    assert command("celeb", raw, tmp_path / "out", ANY_SIZE) == 2
    assert "SHA256SUMS, line 14: expected a SHA-256 and a path" in capsys.readouterr().err


def test_remarks_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("celeb", tmp_path / "raw")
    draw(CELEB["train/1_1_0.jpg"]).convert("L").save(tmp_path / "raw/train/1_1_0.jpg")
    draw(CELEB["train/1_2_0.jpg"]).convert("CMYK").save(tmp_path / "raw/train/1_2_0.jpg")
    assert command("celeb", tmp_path / "raw", tmp_path / "out", ANY_SIZE) == 0
    assert "photos to know of: 1 cmyk, 1 grey" in capsys.readouterr().out
    assert dataset.load("celeb", tmp_path / "out", "train").metadata["remarks"] == {"cmyk": 1, "grey": 1}
    source = tfds.builder_from_directory(records.dataset_path("celeb", tmp_path / "out")).as_data_source("train")
    assert {item["body"].shape for item in source} == {(64, 32, 3)}


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that the name of every image joins when it is read."""
    read: list[str] = []
    original = shards.assemble

    def assemble(source: ImageSource, parts_format: PartsFormat) -> Assembled:
        read.append(source.image_id)
        return original(source, parts_format)

    monkeypatch.setattr(shards, "assemble", assemble)
    return read


def test_a_killed_build_is_not_finished_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(write("celeb", tmp_path / "raw"), tmp_path / "parts")
    arguments = ["--dataset", "celeb", "--raw", str(tmp_path / "raw"), "--parts", str(tmp_path / "parts")]
    arguments += [ANY_SIZE, "--workers", "0", "--out"]
    out, whole = tmp_path / "out", tmp_path / "whole"
    folder = records.dataset_path("celeb", out)
    monkeypatch.setattr(shards, "IMAGES", 4)  # train 2, query 1, gallery 2 shards
    assert build.main([*arguments, str(whole)]) == 0

    # The seventh image is the fourth of the second shard: the first shard stays.
    for where, number, left in (("image", 7, 1), ("collecting", 2, 5)):
        script = [str(Path(__file__).with_name("interrupted_build.py")), where, str(number)]
        code, _, error = finish(start([*script, *arguments, str(out)]))
        assert code == -signal.SIGKILL, error
        assert not builder.is_built("celeb", out)
        with pytest.raises(MissingInputError, match="build it first"):
            dataset.load("celeb", out, "train")
        assert len(list((folder.parent / ".building").glob("*.records"))) == left
    assert list(folder.parent.glob("incomplete.*"))
    read = count_reads(monkeypatch)
    assert build.main([*arguments, str(out)]) == 0
    assert read == []  # all shards were there
    assert files(folder) == files(records.dataset_path("celeb", whole))
    assert [file.name for file in folder.parent.iterdir()] == ["1.0.0"]


def test_mended_files_are_read_again_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("celeb", tmp_path / "raw")
    monkeypatch.setattr(shards, "IMAGES", 1)
    file = tmp_path / "raw/train/2_2_7.jpg"
    content = file.read_bytes()
    file.write_bytes(content[:-30])
    assert command("celeb", tmp_path / "raw", tmp_path / "out", ANY_SIZE) == 2
    file.write_bytes(content)
    read = count_reads(monkeypatch)
    assert command("celeb", tmp_path / "raw", tmp_path / "out", ANY_SIZE) == 0
    assert read == ["2_2_7"]
    assert built("celeb", tmp_path / "out") == set(CELEB.values())


def test_two_builds_of_a_dataset_at_once_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("celeb", tmp_path / "raw")
    work = tmp_path / "out" / "cc_reid" / "celeb" / ".building"
    work.mkdir(parents=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert command("celeb", tmp_path / "raw", tmp_path / "out", ANY_SIZE) == 1
    assert "another process is building" in capsys.readouterr().err
    assert command("celeb", tmp_path / "raw", tmp_path / "out", ANY_SIZE) == 0


def test_a_run_builds_from_an_authors_layout_with_parts(tmp_path: Path) -> None:
    write_parts(write("celeb", tmp_path / "raw"), tmp_path / "parts")
    c = base.get_config()
    c.data.name = "celeb"
    c.data.data_dir, c.data.raw_dir, c.data.parts_dir = (str(tmp_path / name) for name in ("out", "raw", "parts"))
    c.data.allow_different_size = True
    data = opening.load_data(c, tmp_path)
    assert (len(data.train), len(data.query), len(data.gallery), data.classes) == (7, 2, 5, 3)
    assert data.train.has_mask.all()
    assert data.train.has_face.all()


def test_prepared_folders_are_built_by_the_same_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body, parts = encode(draw(CELEB["train/1_1_0.jpg"]), ".jpg"), encode(labels(), ".png")
    examples = [(split, Example(f"0001_c{n}_01", body, parts, body, None, 1, n, 0)) for split in SPLITS for n in (1, 2)]
    prepared_examples.write_prepared(examples, tmp_path / "raw", "prcc")
    assert command("prcc", tmp_path / "raw", tmp_path / "out") == 0
    assert "dataset prcc differs in size" in capsys.readouterr().err
    assert len(dataset.load("prcc", tmp_path / "out", "train")) == 2
    shutil.rmtree(tmp_path / "raw/hr_face")
    assert command("celeb", tmp_path / "raw", tmp_path / "out") == 2
    assert f"folder {tmp_path}/raw/hr_face/bounding_box_train is missing" in capsys.readouterr().err
    assert command("celeb", tmp_path / "raw", tmp_path / "out", "--parts", str(tmp_path / "raw")) == 2
    assert "leave data.parts_dir (--parts) out" in capsys.readouterr().err


def test_metadata_file_is_what_the_dataset_says(tmp_path: Path) -> None:
    write("vc_clothes", tmp_path / "raw")
    assert command("vc_clothes", tmp_path / "raw", tmp_path / "out", ANY_SIZE) == 0
    metadata = json.loads((records.dataset_path("vc_clothes", tmp_path / "out") / "metadata.json").read_text())
    assert metadata["camera"] == "the second number; 2 and 3 see the same clothes, 3 and 4 others"
    assert metadata["label_scheme"] == "cloth_mask"
    assert metadata["masks"] == metadata["faces"] == "none"
