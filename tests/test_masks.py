"""Every kind of mask that people have on disk trains as what it is, or is refused with a line that says what to do."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from author_trees import FOLDER, HEIGHT, WIDTH, draw, encode, labels, write, write_manifest, write_parts
from configs import base
from data_prep import build as build_command
from data_prep import check
from deskpro_jax.data import masks, opening
from deskpro_jax.data.build import builder
from deskpro_jax.data.build.assemble import Assembled, assemble
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.build.prepared_folders import FOLDERS
from deskpro_jax.data.load import dataset
from deskpro_jax.data.load.decoding import FULL, Decoder
from deskpro_jax.errors import InputError

LIP = np.asarray(labels())
CLOTHING = np.isin(LIP, (5, 9))
OFF = np.where(CLOTHING, 0, 255).astype(np.uint8)  # a mask, white off the clothes
ATR = np.select([LIP == 13, LIP == 5, LIP == 9], [11, 4, 6], 0).astype(np.uint8)
PASCAL = np.select([LIP == 13, LIP == 5, LIP == 9], [1, 2, 5], 0).astype(np.uint8)
COLOURS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128, 0, 128, 128, *range(60, 60 + 39)]


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def grey(values: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    return saved(Image.fromarray(values), form, **options)


def with_palette(values: np.ndarray, palette: list[int]) -> bytes:
    image = Image.fromarray(values, "P")
    image.putpalette(palette)
    return saved(image)


def cut_out(alpha: np.ndarray, mode: str = "RGBA") -> bytes:
    """Returns a photo, or for LA a white image, whose alpha channel is the mask."""
    colours = draw(FOLDER["anna/door.jpg"]) if mode == "RGBA" else Image.new("L", (alpha.shape[1], alpha.shape[0]), 255)
    image = colours.convert(mode)
    image.putalpha(Image.fromarray(alpha))
    return saved(image)


def soft(values: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(values).filter(ImageFilter.BoxBlur(1)))


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of mask file.

    Attributes:
        content: the file of the drawn person.
        said: what the user has to say about it.
        suffix: of the file.
    """

    content: bytes
    said: str = masks.AUTO
    suffix: str = ".png"


KINDS = {
    "0 and 255": Kind(grey(OFF)),
    "0 and 1": Kind(grey(OFF // 255)),
    "0 and 254": Kind(grey(OFF // 255 * 254)),
    "16 bits": Kind(grey(OFF.astype(np.uint16) * 257)),
    "16 bits, 0 and 1": Kind(grey((OFF // 255).astype(np.uint16))),
    "16 bits, 0 and 255": Kind(grey(OFF.astype(np.uint16))),
    "one bit": Kind(saved(Image.fromarray(OFF).convert("1"))),
    "RGB": Kind(saved(Image.fromarray(OFF).convert("RGB"))),
    "RGB, 0 and 1": Kind(saved(Image.fromarray(OFF // 255).convert("RGB"))),
    "opaque RGBA": Kind(saved(Image.fromarray(OFF).convert("RGBA"))),
    "alpha": Kind(cut_out(OFF)),
    "alpha, 0 and 1": Kind(cut_out(OFF // 255)),
    "LA": Kind(cut_out(OFF, "LA")),
    "palette of black and white": Kind(with_palette(OFF // 255, [0, 0, 0, 255, 255, 255])),
    "palette of white and black": Kind(with_palette(1 - OFF // 255, [255, 255, 255, 0, 0, 0])),
    "JPEG": Kind(grey(OFF, "JPEG", quality=60), suffix=".jpg"),
    "JPEG in colour": Kind(saved(Image.fromarray(OFF).convert("RGB"), "JPEG", quality=60), suffix=".jpg"),
    "WebP": Kind(saved(Image.fromarray(OFF).convert("RGB"), "WEBP", quality=80), suffix=".webp"),
    "BMP": Kind(grey(OFF, "BMP"), suffix=".bmp"),
    "TIFF": Kind(grey(OFF, "TIFF"), suffix=".tif"),
    "GIF": Kind(grey(OFF, "GIF"), suffix=".gif"),
    "soft edges": Kind(grey(soft(OFF))),
    "twice the size": Kind(grey(np.kron(OFF, np.ones((2, 2), np.uint8)))),
    "labels of SCHP": Kind(with_palette(LIP, COLOURS), "lip"),
    "labels": Kind(grey(LIP), "lip"),
    "labels of ATR": Kind(grey(ATR), "atr"),
    "labels of Pascal": Kind(with_palette(PASCAL, COLOURS), "pascal"),
    "labels of 16 bits": Kind(grey(LIP.astype(np.uint16)), "lip"),
    "labels in a grey palette": Kind(with_palette(LIP, np.repeat(np.arange(20) * 12, 3).tolist()), "lip"),
    "white on the clothes": Kind(grey(255 - OFF), "white-on-clothes"),
    "1 on the clothes": Kind(grey(1 - OFF // 255), "white-on-clothes"),
    "labels of a clothing mask": Kind(grey(1 - OFF // 255), "cloth_mask"),
    "0 and 100": Kind(grey(OFF // 255 * 100), "white-off-clothes"),
    "1 and 2": Kind(grey(OFF // 255 + 1), "white-off-clothes"),
    "2 and 1": Kind(grey(2 - OFF // 255), "white-on-clothes"),
    "two colours": Kind(with_palette(OFF // 255, COLOURS), "white-off-clothes"),
}
NOT_CLOTHING = (~CLOTHING).astype(np.uint8)
EDGE = np.asarray(Image.fromarray(CLOTHING).filter(ImageFilter.MinFilter(3))) != CLOTHING


def with_masks(raw: Path, contents: dict[str, bytes], suffix: str = ".png", kind: str = "") -> Path:
    """Writes a `folder` dataset whose manifest names a mask for some of its photos."""
    write("folder", raw)
    columns = {}
    for number, (path, content) in enumerate(contents.items()):
        name = f"masks/{number}{suffix}"
        (raw / "masks").mkdir(exist_ok=True)
        (raw / name).write_bytes(content)
        columns[path] = name
    more = {"mask_kind": dict.fromkeys(contents, kind)} if kind else {}
    write_manifest(raw / "manifest.csv", FOLDER, mask=columns, **more)
    return raw


def cloth_masks(name: str, data: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict[str, np.ndarray]:
    """Returns the clothing mask of each image as it enters training."""
    result = {}
    for split_name in ("train", "query", "gallery"):
        split = dataset.load(name, data, split_name)
        decoder = Decoder(("cloth_mask",), size, (8, 8), split.clothing, len(split.scheme.labels))
        for index, image_id in enumerate(split.image_id):
            batch = decoder.empty(1)
            decoder.fill(batch, 0, split, index, FULL)
            result[image_id] = batch["cloth_mask"][0]
            assert batch["has_mask"][0]
    return result


def built_masks(name: str, out: Path, raw: Path, **options: object) -> dict[str, np.ndarray]:
    quiet = {"allow_different_size": True, "warn": lambda text: None, "progress": False}
    builder.build(name, out, raw, **(quiet | options))  # type: ignore[arg-type]
    return cloth_masks(name, out)


def assert_trains(values: np.ndarray, kind: str) -> None:
    """Compares a mask at training input with the drawn one; blurred edges may lie a pixel off."""
    differs = values != NOT_CLOTHING
    if kind == "soft edges":
        differs &= ~EDGE
    assert not differs.any(), kind


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_mask_trains_as_what_it_is(kind: str, tmp_path: Path) -> None:
    of_kind = KINDS[kind]
    raw = with_masks(tmp_path / "raw", dict.fromkeys(FOLDER, of_kind.content), of_kind.suffix)
    for values in built_masks("folder", tmp_path / "out", raw, mask_kind=of_kind.said).values():
        assert_trains(values, kind)


def split_folders(root: Path, tree: str, content: bytes, suffix: str) -> None:
    """Writes the celeb tree's masks into the folders of the authors of DeSKPro."""
    for split, folder in FOLDERS.items():
        for number in (1, 2):
            file = root / tree / folder / f"000{number}_c1_00000{number}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if tree == "mask" else encode(draw(FOLDER["anna/door.jpg"]), ".jpg"))
        assert split


def prepared_folders(root: Path, kind: Kind) -> tuple[str, Path, Path | None]:
    for tree in ("imgs", "lr_face", "hr_face"):
        split_folders(root, tree, b"", ".jpg")
    split_folders(root, "mask", kind.content, kind.suffix)
    return "celeb", root, None


def joined_folders(root: Path, kind: Kind) -> tuple[str, Path, Path | None]:
    for split, path in (("train", "train"), ("query", "query"), ("gallery", "gallery")):
        for number in (1, 2):
            file = root / "raw" / path / f"{number}_1_{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(draw(FOLDER["anna/door.jpg"]._replace(split=split, identity=number)), ".jpg"))
    split_folders(root / "parts", "mask", kind.content, kind.suffix)
    return "celeb", root / "raw", root / "parts"


def parts_folder(root: Path, kind: Kind) -> tuple[str, Path, Path | None]:
    write("folder", root / "raw")
    for path in FOLDER:
        file = (root / "parts/parts" / path).with_suffix(kind.suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(kind.content)
    return "folder", root / "raw", root / "parts"


def column(root: Path, kind: Kind) -> tuple[str, Path, Path | None]:
    return "folder", with_masks(root, dict.fromkeys(FOLDER, kind.content), kind.suffix, kind.said), None


Layout = Callable[[Path, Kind], tuple[str, Path, "Path | None"]]


@pytest.mark.parametrize("layout", [prepared_folders, joined_folders, parts_folder, column])
def test_every_layout_reads_every_kind_alike(layout: Layout, tmp_path: Path) -> None:
    for number, (kind, of_kind) in enumerate(KINDS.items()):
        name, raw, parts = layout(tmp_path / str(number), of_kind)
        said = of_kind.said if layout is not column else masks.AUTO
        if layout is parts_folder and said == masks.AUTO:
            said = "white-off-clothes"
        listing = list_dataset(name, raw, parts, mask_kind=said)
        clothing = (
            [1]
            if listing.parts_format.masks
            else {"lip": [5, 9], "atr": [4, 6], "pascal": [2, 5]}.get(listing.parts_format.scheme, [1])
        )
        assembled = assemble(listing.sources[0], listing.parts_format)
        assert assembled.findings == (), (kind, layout)
        assert assembled.example is not None
        assert assembled.example.parts is not None
        with Image.open(io.BytesIO(assembled.example.parts)) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            stored = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
        assert_trains((~np.isin(stored, clothing)).astype(np.uint8), kind)


@pytest.mark.parametrize("layout", [prepared_folders, joined_folders])
def test_dataset_json_may_name_the_scheme_of_label_maps(layout: Layout, tmp_path: Path) -> None:
    name, raw, parts = layout(tmp_path, KINDS["labels of SCHP"])
    with pytest.raises(InputError, match=r"are label maps, with labels up to 13, .*--mask-kind .*: lip, atr would fit"):
        list_dataset(name, raw, parts)
    ((parts or raw) / "dataset.json").write_text(json.dumps({"label_scheme": "lip"}))
    for values in built_masks(name, tmp_path / "out", raw, parts_dir=parts).values():
        assert_trains(values, "")
    metadata = dataset.load(name, tmp_path / "out", "train").metadata
    assert (metadata["label_scheme"], metadata["mask_kind"]) == ("lip", "lip")


def test_the_metadata_of_masks_beside_label_maps_of_another_scheme_is_that_of_masks(tmp_path: Path) -> None:
    """Prepared folders that were written with label maps, which then lost them."""
    name, raw, _ = prepared_folders(tmp_path / "raw", KINDS["JPEG"])
    (raw / "dataset.json").write_text(json.dumps({"label_scheme": "lip"}))
    for values in built_masks(name, tmp_path / "out", raw).values():
        assert_trains(values, "")
    assert dataset.load(name, tmp_path / "out", "train").metadata["label_scheme"] == "cloth_mask"


OF_ONE_VALUE = ("0 and 255", "0 and 1", "alpha", "alpha, 0 and 1", "one bit", "JPEG", "16 bits", "GIF")


@pytest.mark.parametrize("kind", OF_ONE_VALUE)
def test_the_set_decides_what_a_mask_of_one_value_means(kind: str, tmp_path: Path) -> None:
    """Among masks in the alpha channel, or of 0 and 1, a file of one value is all clothing or none."""
    contents: dict[str, bytes] = dict.fromkeys(FOLDER, KINDS[kind].content)
    highest = 1 if kind.endswith("1") else 255
    alike: dict[str, Callable[[np.ndarray], bytes]] = {
        "alpha": cut_out,
        "alpha, 0 and 1": cut_out,
        "one bit": lambda values: saved(Image.fromarray(values).convert("1")),
        "JPEG": lambda values: grey(values, "JPEG"),
        "16 bits": lambda values: grey(values.astype(np.uint16) * 257),
        "GIF": lambda values: grey(values, "GIF"),
    }
    write_mask = alike.get(kind, grey)
    contents["anna/yard.jpg"] = write_mask(np.zeros((HEIGHT, WIDTH), np.uint8))
    contents["test/g1.jpg"] = write_mask(np.full((HEIGHT, WIDTH), highest, np.uint8))
    raw = with_masks(tmp_path / "raw", contents, KINDS[kind].suffix)
    values = built_masks("folder", tmp_path / "out", raw)
    assert not values["anna/yard"].any()
    assert values["test/g1"].all()
    assert_trains(values["anna/door"], kind)


def test_masks_of_several_kinds_of_mask_are_each_read_as_what_they_are(tmp_path: Path) -> None:
    kinds = ("0 and 255", "0 and 1", "alpha", "opaque RGBA", "one bit", "soft edges")
    contents = {path: KINDS[kind].content for path, kind in zip(FOLDER, kinds, strict=True)}
    values = built_masks("folder", tmp_path / "out", with_masks(tmp_path / "raw", contents))
    for path, kind in zip(FOLDER, kinds, strict=True):
        assert_trains(values[path.rsplit(".", 1)[0]], kind)


def test_a_label_map_of_the_background_only_is_no_clothing_among_label_maps(tmp_path: Path) -> None:
    contents = dict.fromkeys(FOLDER, KINDS["labels of SCHP"].content)
    contents["anna/yard.jpg"] = with_palette(np.zeros_like(LIP), COLOURS)
    values = built_masks("folder", tmp_path / "out", with_masks(tmp_path / "raw", contents), mask_kind="lip")
    assert values["anna/yard"].all()


GREY_PHOTO = grey(np.asarray(draw(FOLDER["anna/door.jpg"]).convert("L")))
REFUSED = {
    "labels without a scheme": (KINDS["labels"].content, "", r"6 of 6 masks are label maps, .*--mask-kind .*lip, atr"),
    "SCHP without a scheme": (KINDS["labels of SCHP"].content, "", r"are label maps, .* say which label scheme"),
    "labels of no scheme": (grey(LIP * 4), "", r"labels up to 52, .*no label scheme has so many labels"),
    "labels with a void": (
        grey(np.where(LIP == 0, 255, LIP)),
        "lip",
        r"has label 255, expected 0 to 19 \(scheme lip\): write 0, the background",
    ),
    "labels of another scheme": (grey(LIP), "pascal", r"has label 13, expected 0 to 6 \(scheme pascal\)"),
    "labels in colour": (saved(Image.fromarray(LIP).convert("RGB")), "lip", r"has mode RGB, expected L"),
    "labels in JPEG": (grey(LIP, "JPEG", quality=95), "lip", r"labels in a lossy format"),
    "dark JPEG": (grey(LIP, "JPEG", quality=95), "", r"nearly black.* can't be stored in a lossy format"),
    "labels called masks": (grey(LIP), "white-off-clothes", r"holds numbers up to 13 as a label map does"),
    "masks called labels": (grey(OFF), "lip", r"has label 255, expected 0 to 19"),
    "photo": (saved(draw(FOLDER["anna/door.jpg"])), "", r"has colours, expected a mask.*--mask-kind"),
    "grey photo": (GREY_PHOTO, "", r"is grey, neither black nor white, in \d+% of its pixels, expected a mask"),
    "three levels": (grey(np.where(LIP == 9, 128, OFF).astype(np.uint8)), "", r"is grey, neither black nor white"),
    "two masks": (
        saved(Image.merge("RGBA", [Image.fromarray(OFF)] * 3 + [Image.fromarray(255 - OFF)])),
        "",
        r"one mask in its colours and another in its alpha channel",
    ),
    "unknown kind": (grey(OFF), "inverted", r"--mask-kind .* is 'inverted', expected one of auto, white-off-clothes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_mask_is_refused_by_check_and_build(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, said, reason = REFUSED[case]
    suffix = ".jpg" if "JPEG" in case else ".png"
    raw = with_masks(tmp_path / "raw", dict.fromkeys(FOLDER, content), suffix)
    more = ["--mask-kind", said] if said else []
    out = ["--out", str(tmp_path / "out"), "--workers", "0"]
    assert build_command.main(["--dataset", "folder", "--raw", str(raw), *out, *more]) == 2
    assert_says(capsys.readouterr().err, reason)
    assert not builder.is_built("folder", tmp_path / "out")
    assert check.main([str(raw), "--workers", "0", "--no-sheet", *more]) == 1
    assert_says(capsys.readouterr().out, reason)


def assert_says(printed: str, reason: str) -> None:
    assert re.search(reason, printed), printed
    assert "Traceback" not in printed


def test_label_maps_among_masks_are_refused(tmp_path: Path) -> None:
    contents = dict.fromkeys(FOLDER, KINDS["0 and 255"].content) | {"test/g2.jpg": KINDS["labels"].content}
    with pytest.raises(InputError, match=r"of 6 masks, 5 are black and white, as .*0\.png, and 1 are label maps, as "):
        list_dataset("folder", with_masks(tmp_path, contents))


def test_the_user_is_not_contradicted_in_silence(tmp_path: Path) -> None:
    raw = with_masks(tmp_path / "raw", dict.fromkeys(FOLDER, grey(LIP)), kind="lip")
    with pytest.raises(InputError, match=r"--mask-kind .* is atr, the data says lip"):
        list_dataset("folder", raw, mask_kind="atr")
    text = (raw / "manifest.csv").read_text()
    (raw / "manifest.csv").write_text(text.replace(",lip", ",lop", 1))
    with pytest.raises(InputError, match=r"line 2: mask_kind is 'lop', expected one of white-off-clothes"):
        list_dataset("folder", raw)
    (raw / "manifest.csv").write_text(text.replace(",lip", ",atr", 1))
    with pytest.raises(InputError, match=r"mask_kind is atr \(line 2\) and lip \(line 3\): a dataset has one kind"):
        list_dataset("folder", raw)
    (raw / "manifest.csv").write_text(text)
    built_masks("folder", tmp_path / "out", raw)
    with pytest.raises(InputError, match=r"was built from masks read as lip, --mask-kind .* asks for atr"):
        built_masks("folder", tmp_path / "out", raw, mask_kind="atr")
    with pytest.raises(InputError, match="is drawn with its label maps: leave --mask-kind"):
        builder.build("synthetic_tiny", tmp_path / "drawn", mask_kind="lip")


def checked(raw: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    code = check.main([str(raw), "--workers", "0", *more])
    printed = capsys.readouterr().out
    assert code == 0, printed
    return printed


def test_a_check_prints_how_much_is_clothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = dict.fromkeys(FOLDER, grey(OFF))
    contents["anna/yard.jpg"] = grey(np.zeros_like(OFF))
    contents["ben/door.png"] = grey(np.full_like(OFF, 255))
    raw = with_masks(tmp_path / "raw", contents)
    record = tmp_path / "record.json"
    printed = checked(raw, capsys, "--no-sheet", "--json", str(record))
    share = CLOTHING.mean()
    assert f"clothing in 6 masks: {share:.1%} of the image (median; " in printed
    assert "1 without any, 1 all clothing; read as white-off-clothes" in printed
    assert "masks have no clothing" not in printed
    assert "head region" not in printed
    stored = json.loads(record.read_text())
    assert {name: stored["masks"][name] for name in ("masks", "none", "all", "read_as")} == {
        "masks": 6,
        "none": 1,
        "all": 1,
        "read_as": "white-off-clothes",
    }
    assert stored["images"][0]["mask"]["clothing"] == pytest.approx(share, abs=1e-4)
    built_masks("folder", tmp_path / "out", raw)
    assert f"clothing in 6 masks: {share:.1%} of the image" in checked(tmp_path / "out", capsys, "--no-sheet")


@pytest.mark.parametrize("kind", ["white on the clothes", "1 on the clothes"])
def test_masks_upside_down_are_warned_of_with_the_sheet_of_examples(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = with_masks(tmp_path / "raw", dict.fromkeys(FOLDER, KINDS[kind].content))
    sheet = tmp_path / "sheet.png"
    warning = "in 6 of 6 masks, most of the upper corners in 6, read as white-off-clothes: they may be upside down"
    printed = checked(raw, capsys, "--sheet", str(sheet))
    assert warning in printed
    assert f"(--mask-kind white-on-clothes), or show whole people; look at the examples in {sheet}" in printed
    assert sheet.exists()
    assert warning not in checked(raw, capsys, "--no-sheet", "--mask-kind", "white-on-clothes")
    out = ["--raw", str(raw), "--out", str(tmp_path / "out"), "--workers", "0"]
    assert build_command.main(["--dataset", "folder", *out]) == 0
    assert warning in capsys.readouterr().err
    assert warning in checked(tmp_path / "out", capsys, "--no-sheet")


def test_masks_of_whole_people_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = with_masks(tmp_path / "raw", dict.fromkeys(FOLDER, grey(np.where(LIP > 0, 255, 0).astype(np.uint8))))
    for more in ([], ["--mask-kind", "white-on-clothes"]):
        assert "or show whole people; look at" in checked(raw, capsys, "--no-sheet", *more)


def test_label_maps_read_with_another_scheme_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = with_masks(tmp_path / "raw", dict.fromkeys(FOLDER, grey(ATR)))
    assert "labels of another scheme than lip" in checked(raw, capsys, "--no-sheet", "--mask-kind", "lip")


def test_masks_that_say_nothing_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = dict.fromkeys(FOLDER, grey(np.zeros_like(OFF))) | {"anna/door.jpg": grey(OFF)}
    printed = checked(with_masks(tmp_path / "raw", contents), capsys, "--no-sheet")
    assert "0 of 6 masks have no clothing and 5 nothing else" in printed


def test_masks_of_0_and_1_are_remarked_and_masks_of_another_shape_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    square = np.asarray(Image.fromarray(OFF // 255).resize((48, 48), Image.Resampling.NEAREST))
    raw = with_masks(tmp_path / "raw", dict.fromkeys(FOLDER, grey(square)))
    printed = checked(raw, capsys, "--no-sheet")
    assert "6 of 6 masks hold 0 and 1 only" in printed
    assert "6 of another shape than their photo, stretched to it" in printed


def test_names_are_matched_in_either_unicode_form(tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    write("folder", raw)
    (raw / "anna/door.jpg").rename(raw / "anna/Ole\u0301.jpg")
    (raw / "manifest.csv").write_text((raw / "manifest.csv").read_text().replace("anna/door", "anna/Ole\u0301"))
    (parts / "parts/anna").mkdir(parents=True)
    (parts / "parts/anna/Ol\u00e9.png").write_bytes(grey(LIP))
    (parts / "parts/anna/other.png").write_bytes(grey(LIP))
    listing = list_dataset("folder", raw, parts, mask_kind="lip")
    assert [source.parts for source in listing.sources if source.parts] == [str(parts / "parts/anna/Ol\u00e9.png")]
    assert any("1 files of kind parts belong to no photo" in note and "other.png" in note for note in listing.notes)


def test_masks_of_no_photo_in_prepared_folders_are_counted(tmp_path: Path) -> None:
    _, raw, _ = prepared_folders(tmp_path, KINDS["JPEG"])
    (raw / "imgs" / FOLDERS["train"] / "0002_c1_000002.jpg").unlink()
    notes = list_dataset("celeb", raw).notes
    assert [note.split(": ", 1)[1].split(" belong")[0] for note in notes] == [
        "1 files of kind lr_face",
        "1 files of kind hr_face",
        "1 files of kind mask",
    ]
    assert "mask/bounding_box_train/0002_c1_000002.jpg" in notes[2]


def test_a_manifest_may_name_a_mask_in_the_other_unicode_form(tmp_path: Path) -> None:
    raw = with_masks(tmp_path, {"anna/door.jpg": grey(OFF)})
    (raw / "masks/0.png").rename(raw / "masks/e\u0301.png")
    manifest = raw / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("masks/0.png", "masks/\u00e9.png"))
    masked = [source.parts for source in list_dataset("folder", raw).sources if source.parts]
    assert masked == [str(raw / "masks/e\u0301.png")]


def test_palettes_of_schp_stand_in_for_what_the_preparation_writes(tmp_path: Path) -> None:
    write_parts(write("celeb", tmp_path / "raw"), tmp_path / "parts")
    for file in (tmp_path / "parts/parts").rglob("*.png"):
        file.write_bytes(KINDS["labels of SCHP"].content)
    values = built_masks("celeb", tmp_path / "out", tmp_path / "raw", parts_dir=tmp_path / "parts")
    for mask in values.values():
        assert_trains(mask, "")


def test_a_run_builds_with_the_kind_that_its_configuration_names(tmp_path: Path) -> None:
    raw = with_masks(tmp_path / "raw", dict.fromkeys(FOLDER, KINDS["labels of SCHP"].content))
    config = base.get_config()
    config.data.name, config.data.raw_dir, config.data.data_dir = "folder", str(raw), str(tmp_path / "out")
    with pytest.raises(InputError, match=r"say which label scheme it is with --mask-kind \(data\.mask_kind\)"):
        opening.build_data(config, tmp_path)
    config.data.mask_kind = "lip"
    opening.build_data(config, tmp_path)
    for values in cloth_masks("folder", tmp_path / "out").values():
        assert_trains(values, "")


def test_a_large_set_is_decided_by_a_sample_and_every_file_is_held_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deskpro_jax.data.build import mask_kinds

    monkeypatch.setattr(mask_kinds, "_SAMPLE", 2)  # the first and the last
    contents = dict.fromkeys(FOLDER, grey(OFF)) | {"anna/yard.jpg": grey(LIP)}
    listing = list_dataset("folder", with_masks(tmp_path, contents))
    results: list[Assembled] = [assemble(source, listing.parts_format) for source in listing.sources]
    findings = [str(finding) for result in results for finding in result.findings]
    assert len(findings) == 1
    assert "holds numbers up to 13 as a label map does, expected a mask" in findings[0]


@pytest.mark.parametrize("seed", range(5))
def test_thin_and_soft_masks_are_masks(seed: int) -> None:
    """Blobs of any size with edges of any softness, and lossy copies of them."""
    random = np.random.default_rng(seed)
    for _ in range(10):
        height, width = (int(side) for side in random.integers(20, 300, 2))
        top, left = random.uniform(0.1, 0.4, 2)
        values = np.full((height, width), 255, np.uint8)
        values[int(top * height) : int((1 - top) * height) + 1, int(left * width) : int((1 - left) * width) + 1] = 0
        image = Image.fromarray(values).filter(ImageFilter.GaussianBlur(float(random.uniform(0, height / 40))))
        for content in (saved(image), saved(image, "JPEG", quality=int(random.integers(30, 96)))):
            mask = masks.read_mask(content)
            assert mask.content == masks.MASK, mask.problem
            assert abs(mask.white().mean() - (values == 255).mean()) < 0.1
