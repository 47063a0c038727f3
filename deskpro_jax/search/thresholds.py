"""Verification thresholds: from which similarity on two images show the same person, at a false accept rate (FAR)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation.similarity import MISSING_FACE, Similarity
from deskpro_jax.search.special_identities import ALL_PEOPLE, SpecialIdentities
from deskpro_jax.storage.files import require_json, write_json

MAX_IMAGES = 10_000  # 50 million pairs; more change a threshold in the fourth digit
_BLOCK = 512
_NOBODY = -1  # in place of a person's number, for a distractor
_KEYS = {"similarity": "similarity", "far": "false_accepts", "tar": "true_accepts"}  # field -> name in the JSON file
_COUNTS = ("different", "same")


@dataclass(frozen=True)
class Threshold:
    """A verification threshold and its rates on the labelled images.

    Attributes:
        similarity: the lowest that counts as the same person.
        far: false accept rate, the fraction of pairs of different people that reach it.
        tar: true accept rate, the fraction of pairs of the same person that reach it; NaN where there are no such
            pairs.
        different: number of pairs of different people.
        same: number of pairs of the same person.
    """

    similarity: float
    far: float
    tar: float
    different: int
    same: int


@dataclass(frozen=True)
class Thresholds:
    """Thresholds by the streams that a pair is compared by ("face and body", "body"): they are not on one scale.

    Attributes:
        model_checksum: of the networks whose embeddings they are for.
        max_far: the false accept rate that was asked for.
        by_streams: the thresholds.
        missing_face: `eval.missing_face` of those embeddings.
    """

    model_checksum: str | None
    max_far: float
    by_streams: dict[str, Threshold]
    missing_face: str = MISSING_FACE[0]

    def same_person(self, by: str, similarity: float) -> bool | None:
        """Returns whether two images show the same person; None where there is no threshold.

        Args:
            by: the streams that they were compared by.
            similarity: of the two.
        """
        return bool(similarity >= self.by_streams[by].similarity) if by in self.by_streams else None


def calibrate(
    labelled: EmbeddingSet, max_far: float = 0.01, *, seed: int = 0, special: SpecialIdentities = ALL_PEOPLE
) -> Thresholds:
    """Finds the thresholds at a false accept rate.

    All pairs of images count once. Images that have all streams are compared by them for the one threshold and, with
    all other images, by the streams that every image has for the other. Images of unknown people (no or a negative
    identity) and junk images are left out; a distractor is another person than everybody with an identity, and nothing
    is known of a pair of two distractors. Pairs of photos with equal bytes say nothing of the networks and never count.

    Args:
        labelled: embeddings whose photos have identities.
        max_far: the highest fraction of pairs of different people that may be accepted.
        seed: chooses `MAX_IMAGES` images where there are more.
        special: the identities that name no person.

    Raises:
        InputError: the rate is not between 0 and 1, the identities are not known, or there are too few pairs for it.
    """
    if not 0 < max_far < 1:
        raise InputError(f"the false accept rate is {max_far}; expected a fraction between 0 and 1.")
    labels = labelled.columns()
    identities = labels["identity"]
    distractor = np.array([special.is_distractor(value) for value in identities], bool)
    person = np.array([special.is_person(value) for value in identities], bool)
    if not person.any():
        known = sum(value is not None for value in identities)
        if known:
            raise InputError(
                f"{labelled.path} shows no person whose identity is known: all {known} identities are negative, junk"
                " (--junk) or distractors (--distractors)."
            )
        raise InputError(f"{labelled.path} has no identities: embed a table with a column identity.")
    rows = np.flatnonzero(person | distractor)
    if len(rows) > MAX_IMAGES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_IMAGES, replace=False))
    embeddings = _rows(labelled, rows)
    _, people = np.unique([str(identities[row]) for row in rows], return_inverse=True)
    people = np.where(distractor[rows], _NOBODY, people)
    # Earlier versions wrote no checksums: there a photo is known by its path.
    photos_of = [labels["image_sha256"][row] or labels["image"][row] or str(row) for row in rows]
    _, photos = np.unique(photos_of, return_inverse=True)
    similarity = labelled.similarity
    by_streams = {}
    for names in dict.fromkeys((similarity.names, similarity.always_present())):
        some = similarity.select(names)
        columns = np.concatenate([np.arange(labelled.dimension)[similarity.columns()[name]] for name in names])
        vectors = embeddings if names == similarity.names else embeddings[:, columns]
        complete = some.present(vectors).all(axis=1)
        vectors = some.weigh(vectors[complete])
        threshold = _threshold(vectors, people[complete], photos[complete], similarity, some.total_weight, max_far)
        if threshold is not None:
            by_streams[similarity.compared(some.parts)] = threshold
    if not by_streams:
        needed = math.ceil(1 / max_far)
        raise InputError(
            f"{labelled.path} has {len(rows)} labelled images of {len(set(people.tolist()) - {_NOBODY})} people: fewer"
            f" than {needed} pairs of different people, which a false accept rate of {max_far:.2%} needs."
        )
    return Thresholds(labelled.settings.get("model_checksum"), max_far, by_streams, similarity.missing_face)


def _rows(labelled: EmbeddingSet, rows: np.ndarray) -> np.ndarray:
    chosen, start = [np.zeros((0, labelled.dimension), np.float32)], 0
    for block in labelled.blocks():
        inside = rows[(rows >= start) & (rows < start + len(block))]
        chosen.append(block[inside - start])
        start += len(block)
    return np.concatenate(chosen)


def _threshold(
    vectors: np.ndarray, people: np.ndarray, photos: np.ndarray, similarity: Similarity, weight: float, max_far: float
) -> Threshold | None:
    """Returns the threshold of weighed vectors whose parts weigh `weight`, None where there are too few pairs."""
    same, different = _count_pairs(people)
    values, counts = np.unique(photos, return_counts=True)
    for photo in values[counts > 1]:
        equal = _count_pairs(people[photos == photo])
        same, different = same - equal[0], different - equal[1]
    allowed = math.floor(max_far * different + 1e-9)
    if allowed < 1:
        return None
    # Of the pairs of different people only those are needed that are among the most similar ones.
    highest = np.zeros(0, np.float32)
    genuine = []
    for products, is_same in _pairs(vectors, people, photos):
        values = similarity.mean(products, weight)
        genuine.append(values[is_same])
        highest = np.concatenate([highest, values[~is_same]])
        if len(highest) > allowed + 1:  # one more than may pass: the threshold lies above it
            highest = np.partition(highest, len(highest) - allowed - 1)[-allowed - 1 :]
    # Just above the most similar one that may not pass; what ties with it does not pass either.
    limit = np.nextafter(highest.min(), np.float32(np.inf))
    hits = np.concatenate(genuine)
    tar = float((hits >= limit).mean()) if len(hits) else math.nan
    return Threshold(float(limit), int((highest >= limit).sum()) / different, tar, different, same)


def _pairs(vectors: np.ndarray, people: np.ndarray, photos: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the dot products of all pairs that count, each once, and whether they show the same person.

    Pairs of two distractors and of one photo with itself do not count.
    """
    for start in range(0, len(vectors), _BLOCK):
        rows = slice(start, start + _BLOCK)
        products = vectors[rows] @ vectors[start:].T
        used = np.arange(len(products))[:, None] < np.arange(products.shape[1])[None]
        used &= (people[rows][:, None] != _NOBODY) | (people[start:][None] != _NOBODY)
        used &= photos[rows][:, None] != photos[start:][None]
        yield products[used], (people[rows][:, None] == people[start:][None])[used]


def _count_pairs(people: np.ndarray) -> tuple[int, int]:
    """Returns the numbers of pairs of the same person and of different people."""
    distractors = int(np.count_nonzero(people == _NOBODY))
    sizes = np.bincount(people[people != _NOBODY])
    same = int((sizes * (sizes - 1) // 2).sum())
    return same, _pairs_of(len(people)) - _pairs_of(distractors) - same


def _pairs_of(images: int) -> int:
    return images * (images - 1) // 2


def write_thresholds(path: Path, thresholds: Thresholds) -> None:
    """Writes thresholds as JSON, whole or not at all."""
    by_streams = {}
    for by, threshold in thresholds.by_streams.items():
        values = {key: getattr(threshold, field) for field, key in _KEYS.items()}
        values = {key: None if math.isnan(value) else value for key, value in values.items()}
        by_streams[by] = values | {count: getattr(threshold, count) for count in _COUNTS}
    record = {
        "model_checksum": thresholds.model_checksum,
        "wanted": thresholds.max_far,
        "by_streams": by_streams,
        "missing_face": thresholds.missing_face,
    }
    write_json(path, record)


def read_thresholds(path: Path) -> Thresholds:
    """Reads what `write_thresholds` wrote.

    Raises:
        MissingInputError: there is no such file.
        InputError: it holds something else.
    """
    if not path.is_file():
        raise MissingInputError(f"no file at {path}: make it with --calibrate, or correct --thresholds.")
    try:
        record = require_json(path, "write it again with --calibrate")
        by_streams = {}
        for by, value in record["by_streams"].items():
            similarity, far, tar = (math.nan if value[key] is None else float(value[key]) for key in _KEYS.values())
            different, same = (int(value[count]) for count in _COUNTS)
            by_streams[by] = Threshold(similarity, far, tar, different, same)
        rule = str(record.get("missing_face", MISSING_FACE[0]))
        return Thresholds(record["model_checksum"], float(record["wanted"]), by_streams, rule)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} holds no thresholds ({error!r}): write them with --calibrate.") from error


def sentences(thresholds: Thresholds) -> Sequence[str]:
    """Returns a line for each threshold."""
    return [
        f"same person by {by}: similarity of {t.similarity:.4f} or more (FAR {t.far:.2%} of {t.different} pairs of"
        f" different people, {_tar(t)})"
        for by, t in thresholds.by_streams.items()
    ]


def _tar(threshold: Threshold) -> str:
    if not threshold.same:
        return "TAR unknown: no pairs of the same person"
    return f"TAR {threshold.tar:.1%} of {threshold.same} pairs of the same person"
