"""RetinaFace computes what the published code does, from the file to the face of the person that a crop shows.

Golden cases come from tests/golden/data_prep, or from the folder `data_prep` in the one that DESKPRO_GOLDEN names.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import golden_rule
import runs
import torch_files
from data_prep.detection import anchors, detect, load, model, names, postprocess, preprocess
from data_prep.detection.postprocess import Detections
from data_prep.identify import describe
from deskpro_jax.data.synthetic import generate
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.weights import table

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("DESKPRO_GOLDEN") or HERE / "golden") / "data_prep"
OFFICIAL = HERE.parents[1] / "shared" / "weights" / "retinaface_mobilenet0.25_Final.pth"
STEMS = ("retinaface_mnet025", "retinaface_r50")
# In the rule that fills the reference weights: of the first convolution, and of the others.
GAINS = {"mobilenet0.25": (0.02, 1.25), "resnet50": (0.02, 1.0)}
ROUNDING = 5e-6  # of the largest value of an output, after some 60 convolutions in float32

needs_official = pytest.mark.skipif(not OFFICIAL.exists(), reason="the published weights are not here")


def fast_jit(function: Any) -> Any:
    """Compiles without LLVM's optimisations, which take most of the time for functions that run a few times."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def meta(data: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(str(data["meta"])) if "meta" in data else {}


def state_dict(shapes: list[Any], seed: int) -> dict[str, np.ndarray]:
    """Returns the reference's weights in float32: the common rule, scaled to keep activations in range."""
    variant = variant_of(shapes)
    first, others = GAINS[variant]
    tensors = {}
    for position, (name, shape) in enumerate(shapes):
        gain = 1.0 if len(shape) != 4 else first if position == 0 else others
        value = golden_rule.fill(name, shape, seed)
        tensors[name] = (gain * value).astype(np.float32) if value.dtype.kind == "f" else value
    return tensors


def variant_of(shapes: list[Any]) -> str:
    words = describe({name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes})
    return re.fullmatch(r"a RetinaFace detector \((.*)\)", words)[1]  # type: ignore[index]


def manifest(path: Path) -> list[Any]:
    beside = path.with_name(f"{path.stem}_manifest.json")
    own = HERE / "golden" / "data_prep" / beside.name
    return list(json.loads((beside if beside.exists() else own).read_text()))


def size_of(priors: np.ndarray) -> tuple[int, int]:
    """Returns height and width of the image whose anchors these are: the first one's centre is at 4 pixels."""
    return round(4 / float(priors[0, 1])), round(4 / float(priors[0, 0]))


def network_cases() -> list[Any]:
    found = [
        pytest.param(path, name.removesuffix("_conf_raw"), id=f"{path.stem}-{name.removesuffix('_conf_raw')}")
        for path in sorted(FOLDER.glob("retinaface_*.npz"))
        for name in np.load(path).files
        if name.endswith("_conf_raw")
    ]
    skip = pytest.mark.skip(reason=f"{FOLDER} holds no outputs of RetinaFace")
    return found or [pytest.param(None, None, id="none", marks=skip)]


def thresholds(data: Mapping[str, Any], case: str) -> Iterator[tuple[float, np.ndarray]]:
    for name in data:
        if match := re.fullmatch(rf"{re.escape(case)}_dets_(?:conf)?([\d.]+)", name):
            yield float(match[1]), data[name]


def rows(found: Detections) -> np.ndarray:
    """Returns faces as the reference lists them: box, score, landmarks."""
    return np.concatenate([found.boxes, found.scores[:, None], found.landmarks.reshape(-1, 10)], 1)


def assert_close(actual: Any, expected: np.ndarray, share: float, what: str) -> None:
    assert np.shape(actual) == expected.shape, what
    worst = np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()
    assert worst < share, f"{what}: {worst:.1e} of the largest value"


@functools.cache
def golden_variables(path: Path, seed: int) -> tuple[str, dict[str, Any]]:
    shapes = manifest(path)
    return variant_of(shapes), load.to_variables(variant_of(shapes), state_dict(shapes, seed))


@pytest.mark.parametrize(("path", "case"), network_cases())
def test_outputs_and_faces_are_those_of_the_published_network(path: Path, case: str) -> None:
    data = dict(np.load(path))
    variant, variables = golden_variables(path, meta(data).get("weights_seed", 7))
    height, width = size_of(data[f"{case}_priors"])
    priors = anchors.anchors(height, width)
    np.testing.assert_array_equal(priors, data[f"{case}_priors"])
    pixels = 255 * np.random.default_rng(meta(data).get("input_seed", 123)).random((1, 3, height, width))
    x = (pixels.transpose(0, 2, 3, 1) - preprocess.MEAN_RGB[::-1]).astype(np.float32)
    boxes, logits, landmarks = fast_jit(model.RetinaFace(variant).apply)(variables, x)
    scores = jax.nn.softmax(logits, -1)
    outputs = {"loc": boxes, "conf_raw": logits, "conf": scores, "landms": landmarks}
    for name in (name for name in outputs if f"{case}_{name}" in data):
        assert_close(outputs[name], data[f"{case}_{name}"], ROUNDING, name)
    scale = np.float32([width, height])
    raw = detect.Raw(
        anchors.decode_boxes(boxes, priors) * np.tile(scale, 2),
        scores[..., 1],
        anchors.decode_landmarks(landmarks, priors) * scale,
    )
    for threshold, expected in thresholds(data, case):
        (found,) = postprocess.detections(raw, score_threshold=threshold)
        assert_close(rows(found), expected, ROUNDING, f"faces over {threshold}")


POST = FOLDER / "retinaface_post.npz"
POST_CASES = [name.removesuffix("_hw") for name in np.load(POST).files if name.endswith("_hw")] if POST.exists() else []


@pytest.mark.skipif(not POST_CASES, reason=f"{FOLDER} holds no post-processing of RetinaFace")
@pytest.mark.parametrize("case", POST_CASES)
def test_anchors_decoding_and_suppression_are_those_of_the_published_code(case: str) -> None:
    data = np.load(POST)
    height, width = map(int, data[f"{case}_hw"])
    priors = anchors.anchors(height, width)
    np.testing.assert_array_equal(priors, data[f"{case}_priors"])
    decoded = anchors.decode_boxes(data[f"{case}_loc"].astype(np.float32), priors)
    assert_close(decoded, data[f"{case}_decoded"], 3e-7, "boxes")
    landmarks = anchors.decode_landmarks(data[f"{case}_landms"].astype(np.float32), priors)
    scale = np.float32([width, height])
    scores = data[f"{case}_scores"].astype(np.float32)
    raw = detect.Raw((decoded * np.tile(scale, 2))[None], scores[None], (landmarks * scale)[None])
    checked = list(thresholds(data, case))
    assert checked
    for threshold, expected in checked:
        (found,) = postprocess.detections(raw, score_threshold=threshold)
        assert_close(rows(found), expected, 3e-7, f"faces over {threshold}")


@functools.cache
def golden_detector(stem: str) -> load.Detector:
    shapes = json.loads((HERE / "golden" / "data_prep" / f"{stem}_manifest.json").read_text())
    variant = variant_of(shapes)
    return load.Detector(variant, load.to_variables(variant, state_dict(shapes, 5)), "")


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("stem", STEMS)
def test_what_lies_around_an_image_on_its_canvas_changes_nothing(stem: str) -> None:
    detector = golden_detector(stem)
    run = fast_jit(functools.partial(detect.detect_raw, detector))
    image, (height, width), (rows, columns) = noise(0, 45, 27), (45, 27), (96, 64)
    alone = [np.asarray(part)[0] for part in run(detector.variables, image[None])]
    canvases = np.stack([noise(1, rows, columns), np.zeros((rows, columns, 3), np.uint8), noise(2, rows, columns)])
    canvases[:2, :height, :width] = image
    together = run(detector.variables, canvases, np.asarray([(height, width)] * 2 + [(rows, columns)], np.int32))
    levels = [np.zeros((-(-rows // stride), -(-columns // stride), 2), bool) for stride in model.STRIDES]
    for level, stride in zip(levels, model.STRIDES, strict=True):
        level[: -(-height // stride), : -(-width // stride)] = True
    inside = np.concatenate([level.ravel() for level in levels])
    for part, expected in zip(together, alone, strict=True):
        for i in range(2):
            assert_close(np.asarray(part)[i, inside], expected, ROUNDING, f"canvas {i}")
    scores = np.asarray(together.scores)
    assert not scores[:2, ~inside].any()
    assert (scores[2] > 0).all()
    # Without its size the image is another one.
    whole = np.asarray(run(detector.variables, canvases, np.asarray([(rows, columns)] * 3, np.int32)).scores)
    assert np.abs(whole[:2, inside] - alone[1]).max(1).min() > 1e-3


def test_eight_devices_find_what_one_does() -> None:
    code, out, err = runs.finish(runs.start([str(HERE / "device_faces.py")], devices=8))
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["parts"] == [8, 8, 8]
    assert max(result["worst"].values()) < ROUNDING, result


def test_whatever_type_the_network_runs_in_its_results_are_float32() -> None:
    detector = golden_detector(STEMS[0])
    run = functools.partial(detect.detect_raw, detector, dtype="bfloat16")
    text = str(jax.make_jaxpr(run)(detector.variables, noise(0, 32, 32)[None]))
    assert re.search(r"bf16\[1,16,16,8\] = conv_general_dilated", text)
    results = jax.eval_shape(run, detector.variables, noise(0, 32, 32)[None])
    assert {part.dtype for part in results} == {np.dtype(np.float32)}


# --- files


@functools.cache
def published() -> dict[str, np.ndarray]:
    shapes = json.loads((HERE / "golden" / "data_prep" / "retinaface_mnet025_manifest.json").read_text())
    return state_dict(shapes, 5)


@pytest.mark.parametrize("stem", STEMS)
def test_every_published_tensor_has_its_place_and_every_place_its_tensor(stem: str) -> None:
    shapes = json.loads((HERE / "golden" / "data_prep" / f"{stem}_manifest.json").read_text())
    tensors = state_dict(shapes, 5)
    variant = variant_of(shapes)
    variables = load.to_variables(variant, tensors)
    back = table.dump(names.retinaface(variant), variables)
    assert set(back) == {name for name in tensors if not name.endswith("num_batches_tracked")}
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)
    counts = {"mobilenet0.25": 426_608, "resnet50": 27_293_600}
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == counts[variant]


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_both_formats_and_wrapped_names_are_read(form: str, prefix: str, tmp_path: Path) -> None:
    tree = {prefix + name: value for name, value in published().items()}
    data = torch_files.torch_zip({"state_dict": tree}) if form == "zip" else torch_files.torch_legacy(tree)
    detector = load.load_detector(torch_files.save(tmp_path / "file.pth", data))
    assert detector.variant == "mobilenet0.25"
    assert re.fullmatch("[0-9a-f]{64}", detector.checksum)
    kernel = detector.variables["params"]["body"]["stem"]["kernel"]
    np.testing.assert_array_equal(kernel, published()["body.stage1.0.0.weight"].transpose(2, 3, 1, 0))


def test_weights_in_half_precision_are_read_as_float32(tmp_path: Path) -> None:
    tree = {name: v.astype(np.float16) if v.dtype.kind == "f" else v for name, v in published().items()}
    detector = load.load_detector(torch_files.save(tmp_path / "half.pth", torch_files.torch_zip(tree)))
    assert {leaf.dtype for leaf in jax.tree.leaves(detector.variables)} == {np.dtype(np.float32)}


WRONG = {
    "a GPEN restorer (256 px)": {
        "generator.style.1.weight": (2, 2),
        **{f"ecd{i}.0.{min(i, 1)}.weight": (2, 2, 1, 1) for i in range(7)},
    },
    "an SCHP parser (18 classes, ATR)": {"module.fushion.3.weight": (18, 4, 1, 1)},
    "a DeSKPro network": {
        "nocloth_net.backbone.0.conv.weight": (2, 3, 7, 7),
        "nocloth_net.backbone.3.conv1.conv.weight": (2, 2, 1, 1),
    },
    "no network known here": {"features.0.weight": (2, 2)},
    "a RetinaFace detector (a body not known here)": {"ClassHead.0.conv1x1.weight": (4, 4, 1, 1)},
}


@pytest.mark.parametrize("what", WRONG)
def test_another_network_is_called_by_its_name(what: str, tmp_path: Path) -> None:
    tree = {name: np.zeros(shape, np.float32) for name, shape in WRONG[what].items()}
    path = torch_files.save(tmp_path / "mobilenet0.25_Final.pth", torch_files.torch_zip(tree))
    with pytest.raises(InputError) as error:
        load.load_detector(path)
    assert f"{path} holds {what}" in str(error.value)
    assert "expected a RetinaFace detector (mobilenet0.25 or resnet50)" in str(error.value)


def test_files_that_are_no_weights_or_cut_short_are_named(tmp_path: Path) -> None:
    page = torch_files.save(tmp_path / "page.pth", b"<!DOCTYPE html><html><body>Sign in</body></html>")
    with pytest.raises(InputError, match=r"page\.pth is a web page"):
        load.load_detector(page)
    for make in (torch_files.torch_zip, torch_files.torch_legacy):
        cut = torch_files.save(tmp_path / "cut.pth", make(published())[:-5000])
        with pytest.raises(InputError, match=r"cut\.pth is .*cut.short"):
            load.load_detector(cut)
    with pytest.raises(MissingInputError, match=r"no file at .*none\.pth"):
        load.load_detector(tmp_path / "none.pth")


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    tree = dict(published())
    del tree["ssh2.conv7x7_3.0.weight"]
    tree["fpn.merge1.0.weight"] = np.zeros((64, 64, 1, 1), np.float32)
    tree["body.fc.weight"] = np.zeros((1000, 256), np.float32)
    tree["BboxHead.1.conv1x1.bias"] = np.zeros(8, np.int64)
    tree["extra.num_batches_tracked"] = np.zeros((), np.int64)
    path = torch_files.save(tmp_path / "odd.pth", torch_files.torch_zip(tree))
    with pytest.raises(InputError) as error:
        load.load_detector(path)
    first, *lines = str(error.value).splitlines()
    assert f"{path} holds a RetinaFace detector (mobilenet0.25)" in first
    assert "(5 tensors)" in first
    expected = {
        "ssh2.conv7x7_3.0.weight": ("not in the file", "(16, 16, 3, 3)"),
        "fpn.merge1.0.weight": ("(64, 64, 1, 1)", "(64, 64, 3, 3)"),
        "body.fc.weight": ("(1000, 256)", "no such tensor"),
        "BboxHead.1.conv1x1.bias": ("int64", "floating-point"),
        "extra.num_batches_tracked": ("()", "no such tensor"),
    }
    for name, words in expected.items():
        (line,) = (line for line in lines if name in line)
        assert all(word in line for word in words), line


# --- the published weights


@pytest.fixture(scope="module")
def official() -> Any:
    """Finds the faces in a photo with the published weights, in pixels of the photo."""
    detector = load.load_detector(OFFICIAL)
    run = fast_jit(functools.partial(detect.detect_raw, detector))

    def find(image: np.ndarray, canvas: tuple[int, int] | None = None) -> Detections:
        height, width = image.shape[:2]
        factor = preprocess.choose_factor(height, width)
        rows, columns = preprocess.enlarged_size(height, width, factor)
        batch = preprocess.enlarge(image, factor, canvas)[None]
        raw = run(detector.variables, batch, np.asarray([(rows, columns)], np.int32))
        return postprocess.detections(raw)[0].scaled(width / columns, height / rows)

    return find


@needs_official
def test_the_published_file_is_recognised() -> None:
    detector = load.load_detector(OFFICIAL)
    assert detector.variant == "mobilenet0.25"
    assert detector.checksum.startswith("2979b33f")
    assert detector.checksum.endswith("5220")


@needs_official
def test_published_weights_find_the_faces_of_synthetic_people(official: Any) -> None:
    found, backs = [], []
    for _, example in zip(range(40), generate.generate("tiny", 0), strict=False):
        _, drawn = example
        image = np.asarray(Image.open(io.BytesIO(drawn.body)).convert("RGB"))
        faces = official(image)
        best = postprocess.best_face(faces, *image.shape[:2])
        if drawn.face is None:
            backs.append(best is not None)
            continue
        rows, columns = np.nonzero(np.asarray(Image.open(io.BytesIO(drawn.parts))) == 13)
        if best is None:
            found.append(False)
            continue
        x, y = faces.boxes[best].reshape(2, 2).mean(0)
        nose = faces.landmarks[best, 2]
        found.append(
            columns.min() - 2 <= x <= columns.max() + 2
            and rows.min() - 2 <= y <= rows.max() + 2
            and rows.min() - 2 <= nose[1] <= rows.max() + 2
            and faces.landmarks[best, :2, 1].mean() < nose[1] < faces.landmarks[best, 3:, 1].mean()
        )
    assert len(found) > 25
    assert np.mean(found) > 0.8
    assert not any(backs)


@needs_official
def test_published_weights_find_the_face_in_a_photograph(official: Any) -> None:
    data = pytest.importorskip("skimage.data")
    photo = data.astronaut()
    faces = official(photo)
    best = postprocess.best_face(faces, *photo.shape[:2])
    assert best == 0
    assert faces.scores[0] > 0.99
    np.testing.assert_allclose(faces.boxes[0], [178, 56, 270, 176], atol=6)
    small = np.asarray(Image.fromarray(photo).resize((128, 128), Image.Resampling.BOX))
    np.testing.assert_allclose(4 * official(small, (288, 320)).boxes[0], faces.boxes[0], atol=12)
