"""What colours and pixels alone say about the synthetic people: `python -m benchmarks.drawn_people`.

Each baseline is the nearest neighbour by Euclidean distance of a picture's simple figures, scored under the rule
`general`; beside it stands chance, the same with random numbers for the same images. docs/synthetic.md has the table.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from deskpro_jax.data.schema import SCHEMES, Example
from deskpro_jax.data.synthetic.generate import SIZES, generate
from deskpro_jax.evaluation.matching_rules import Labels
from deskpro_jax.evaluation.ranking import score_from_distances

Examples = Sequence[tuple[str, Example]]  # split and example


def pixels(file: bytes | None, size: tuple[int, int]) -> np.ndarray:
    """Returns the colours of an image at another size, width first; (1, 1) gives its mean."""
    with Image.open(io.BytesIO(file or b"")) as image:
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX), np.float32).ravel()


def clothes_colours(example: Example) -> np.ndarray:
    """Returns the square roots of the fractions of 512 colours (hue, saturation, value) on the clothes."""
    with Image.open(io.BytesIO(example.body)) as body, Image.open(io.BytesIO(example.parts or b"")) as parts:
        clothes = np.asarray(body.convert("HSV"))[np.isin(np.asarray(parts), SCHEMES["lip"].clothing)] // 32
    counts = np.bincount(clothes.astype(int) @ np.array([64, 8, 1]), minlength=512)
    return np.sqrt(counts / counts.sum())


BASELINES: dict[str, Callable[[Example], np.ndarray]] = {
    "colours of the clothes": clothes_colours,
    "pixels of the photo, 32 x 64": lambda example: pixels(example.body, (32, 64)),
    "mean colour of the face": lambda example: pixels(example.face, (1, 1)),
    "mean colour of the restored face": lambda example: pixels(example.restored_face, (1, 1)),
    "pixels of the face, 32 x 32": lambda example: pixels(example.face, (32, 32)),
    "pixels of the restored face, 32 x 32": lambda example: pixels(example.restored_face, (32, 32)),
}


def mean_ap(features: np.ndarray, examples: Examples) -> float:
    """Returns the mAP (0 to 1) of queries among the gallery by the Euclidean distance of features [images, any]."""
    split = np.array([name for name, _ in examples])
    values = np.array([(example.identity, example.camera, example.clothes) for _, example in examples])
    query, gallery = np.flatnonzero(split == "query"), np.flatnonzero(split == "gallery")
    distances = np.linalg.norm(features[query][:, None] - features[gallery][None], axis=-1)
    return score_from_distances(distances, Labels(*values[query].T), Labels(*values[gallery].T)).map


def baselines(examples: Examples) -> dict[str, tuple[float, float]]:
    """Returns mAP and chance (0 to 1) of each baseline; those of faces leave out the images without one."""
    rng = np.random.default_rng(0)
    with_faces = [pair for pair in examples if pair[1].face]
    scores = {}
    for name, feature in BASELINES.items():
        chosen = with_faces if "face" in name else examples
        chance = np.mean([mean_ap(rng.standard_normal((len(chosen), 4)), chosen) for _ in range(10)])
        scores[name] = mean_ap(np.stack([feature(example) for _, example in chosen]), chosen), float(chance)
    return scores


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, in percent."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawn_people", description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="small", help="of the data set; default small")
    parser.add_argument("--seed", type=int, default=0, help="that it is drawn with; default 0")
    arguments = parser.parse_args(argv)
    examples = [pair for pair in generate(arguments.size, arguments.seed) if pair[0] != "train"]
    print("| nearest neighbour by | mAP | chance |\n|---|---:|---:|")
    for name, (score, chance) in baselines(examples).items():
        print(f"| {name} | {100 * score:.1f} | {100 * chance:.1f} |")


if __name__ == "__main__":
    main()
