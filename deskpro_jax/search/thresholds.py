"""Thresholds on similarity that answer "the same person?", from labelled images and a share of false accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation.ranking import MISSING_FACE, similarity
from deskpro_jax.search.exact import compared, present
from deskpro_jax.storage.files import write_json

MAX_IMAGES = 10_000  # 50 million pairs; more change a threshold in the fourth digit
_BLOCK = 512


@dataclass(frozen=True)
class Threshold:
    """From which similarity on two images count as the same person.

    Attributes:
        similarity: the smallest that is accepted.
        false_accepts: share of pairs of different people that reach it, in the labelled images.
        true_accepts: share of pairs of the same person that do; NaN where there are none.
        different: pairs of different people.
        same: pairs of the same person.
    """

    similarity: float
    false_accepts: float
    true_accepts: float
    different: int
    same: int


@dataclass(frozen=True)
class Thresholds:
    """Thresholds by what a pair is compared by ("face and body", "body"), since the two are not on one scale.

    Attributes:
        model_checksum: of the networks whose embeddings they are for.
        missing_face: how photos without a face are compared there.
        wanted: the share of false accepts that was asked for.
        by_streams: the thresholds.
    """

    model_checksum: str | None
    wanted: float
    by_streams: dict[str, Threshold]
    missing_face: str = MISSING_FACE[0]

    def same_person(self, by: str, near: float) -> bool | None:
        """Returns whether a similarity says that two images show the same person, None where nothing was calibrated.

        Args:
            by: what they were compared by.
            near: their similarity.
        """
        return bool(near >= self.by_streams[by].similarity) if by in self.by_streams else None


def calibrate(labelled: EmbeddingSet, false_accepts: float = 0.01, *, seed: int = 0) -> Thresholds:
    """Finds the thresholds at a share of false accepts.

    All pairs of images count once. Images that have a face are compared by both streams for the one threshold and, with
    all others, by the body stream for the other. Images of unknown people (no or a negative identity) are left out.

    Args:
        labelled: embeddings whose photos have identities.
        false_accepts: share of pairs of different people that may be accepted.
        seed: chooses `MAX_IMAGES` images of more.

    Raises:
        InputError: the share makes no sense, the identities are not known, or there are too few pairs for it.
    """
    if not 0 < false_accepts < 1:
        raise InputError(f"false_accepts is {false_accepts}; expected a share between 0 and 1.")
    identities = labelled.columns()["identity"]
    known = np.array([_is_person(value) for value in identities], bool)
    if not known.any():
        raise InputError(f"{labelled.path} has no identities: embed a table with a column identity.")
    rows = np.flatnonzero(known)
    if len(rows) > MAX_IMAGES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_IMAGES, replace=False))
    embeddings = _rows(labelled, rows)
    _, people = np.unique([str(identities[row]) for row in rows], return_inverse=True)
    streams, parts = labelled.streams, labelled.parts
    found = {}
    for kept in dict.fromkeys((len(streams), 1)):  # all streams, then the last alone
        width = labelled.dimension // len(streams) * kept
        vectors, count = embeddings[:, -width:], parts // len(streams) * kept
        whole = present(vectors, count).all(axis=1)
        share = count / parts if labelled.missing_face == "zeros" else 1.0
        threshold = _threshold(vectors[whole], people[whole], count, false_accepts, share)
        if threshold is not None:
            found[compared(count, streams if kept > 1 else streams[-1:], count)] = threshold
    if not found:
        needed = math.ceil(1 / false_accepts)
        raise InputError(
            f"{labelled.path} has {len(rows)} labelled images of {len(set(people.tolist()))} people: fewer than"
            f" {needed} pairs of different people, which {false_accepts:.2%} false accepts need."
        )
    return Thresholds(labelled.settings.get("model_checksum"), false_accepts, found, labelled.missing_face)


def _is_person(identity: Any) -> bool:
    return identity is not None and not (isinstance(identity, int) and identity < 0)


def _rows(labelled: EmbeddingSet, rows: np.ndarray) -> np.ndarray:
    chosen, start = [np.zeros((0, labelled.dimension), np.float32)], 0
    for block in labelled.blocks():
        inside = rows[(rows >= start) & (rows < start + len(block))]
        chosen.append(block[inside - start])
        start += len(block)
    return np.concatenate(chosen)


def _threshold(
    vectors: np.ndarray, people: np.ndarray, parts: int, false_accepts: float, share: float
) -> Threshold | None:
    """Returns the threshold of vectors whose similarity is multiplied by `share`, None where there are too few."""
    # Of the pairs of different people only those are needed that are among the most similar ones.
    sizes = np.bincount(people)
    same = int((sizes * (sizes - 1) // 2).sum())
    different = len(people) * (len(people) - 1) // 2 - same
    allowed = math.floor(false_accepts * different + 1e-9)
    if allowed < 1:
        return None
    highest = np.zeros(0, np.float32)
    matches = []
    for near, is_same in _pairs(vectors, people, parts):
        near = near * np.float32(share)
        matches.append(near[is_same])
        highest = np.concatenate([highest, near[~is_same]])
        if len(highest) > allowed + 1:  # one more than may pass: the threshold lies above it
            highest = np.partition(highest, len(highest) - allowed - 1)[-allowed - 1 :]
    # Just above the most similar one that may not pass; what ties with it does not pass either.
    limit = np.nextafter(highest.min(), np.float32(np.inf))
    accepted = int((highest >= limit).sum())
    hits = np.concatenate(matches)
    true = float((hits >= limit).mean()) if len(hits) else math.nan
    return Threshold(float(limit), accepted / different, true, different, same)


def _pairs(vectors: np.ndarray, people: np.ndarray, parts: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the similarities of all pairs once, block by block, and whether they show the same person."""
    for start in range(0, len(vectors), _BLOCK):
        rows = slice(start, start + _BLOCK)
        near = similarity(vectors[rows], vectors[start:], parts=parts)
        upper = np.arange(len(near))[:, None] < np.arange(near.shape[1])[None]
        yield near[upper], (people[rows][:, None] == people[start:][None])[upper]


def write_thresholds(path: Path, thresholds: Thresholds) -> None:
    """Writes thresholds as JSON, whole or not at all."""
    record = asdict(thresholds)
    for value in record["by_streams"].values():
        value["true_accepts"] = None if math.isnan(value["true_accepts"]) else value["true_accepts"]
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
        record = json.loads(path.read_text(encoding="utf-8"))
        by_streams = {
            name: Threshold(
                **value | {"true_accepts": math.nan if value["true_accepts"] is None else value["true_accepts"]}
            )
            for name, value in record["by_streams"].items()
        }
        rule = str(record.get("missing_face", MISSING_FACE[0]))
        return Thresholds(record["model_checksum"], float(record["wanted"]), by_streams, rule)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} holds no thresholds ({error!r}): write them with --calibrate.") from error


def sentences(thresholds: Thresholds) -> Sequence[str]:
    """Returns a line for each threshold."""
    return [
        f"same person by {by}: similarity of {t.similarity:.4f} or more (accepts {t.false_accepts:.2%} of {t.different}"
        f" pairs of different people and {t.true_accepts:.1%} of {t.same} pairs of the same)"
        for by, t in thresholds.by_streams.items()
    ]
