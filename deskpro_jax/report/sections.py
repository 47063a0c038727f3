"""The sections of the page that look at images: lists, attention, similarities, confusions, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from deskpro_jax.data.images import decode_image
from deskpro_jax.data.load import dataset, pipeline
from deskpro_jax.evaluation.ranking import Scores
from deskpro_jax.report import attention, confusions, ranked, similarities
from deskpro_jax.report.attention import Maps
from deskpro_jax.report.cards import Card, card, person_name
from deskpro_jax.report.charts import Bars, draw_histogram
from deskpro_jax.report.opened import Opened
from deskpro_jax.report.pictures import Picture, Pictures, outlined, overlaid, tinted
from deskpro_jax.report.view import View
from deskpro_jax.workdir.networks import LoadedNetworks

_RANKED_SHARE, _ATTENTION_SHARE = 0.55, 0.2  # of the pictures; the rest is for confusions
_LISTS, _PHOTOS, _PAIRS = 4, 12, 10  # lists a group, photos with maps, pairs a list: at most


class Budget(NamedTuple):
    """How many pictures each section may have: lists of each group, entries of a list, pictures, pairs."""

    lists: int
    entries: int
    attention: int
    pairs: int


def divide(images: int, ranks: int) -> Budget:
    """Divides the pictures of a page among its sections.

    Args:
        images: pictures on the page, at most.
        ranks: entries of a ranked list, at most.
    """
    lists, maps = int(images * _RANKED_SHARE), int(images * _ATTENTION_SHARE)
    entries = max(0, min(ranks, lists // len(ranked.GROUPS) - 1))
    count = min(_LISTS, lists // (len(ranked.GROUPS) * (entries + 1))) if entries else 0
    return Budget(count, entries, maps, min(_PAIRS, (images - lists - maps) // 6))


@dataclass(frozen=True)
class Run:
    """Networks whose attention is looked at, and what they are called."""

    name: str
    trained: LoadedNetworks


@dataclass
class Shown:
    """A section: what the template needs, or why there is nothing to show."""

    missing: str = ""
    notes: list[str] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)


def ranked_section(opened: Opened, view: View, scores: Scores, budget: Budget, pictures: Pictures) -> Shown:
    """Returns the ranked lists.

    Args:
        opened: networks and images.
        view: stream and protocol.
        scores: of the view.
        budget: how many lists.
        pictures: makes the pictures.
    """
    if not budget.lists:
        return Shown(missing="No ranked lists: --images leaves no room for them.")
    chosen = ranked.choose(scores.average_precision, view.query_labels.identity, budget.lists)
    faces = _faces(opened.trained)
    groups = []
    for group, lists in ranked.ranked_lists(view, scores, chosen, budget.entries).items():
        shown = []
        for one in lists:
            query = card(pictures, opened.query, one.query, faces=faces)
            entries = [(card(pictures, opened.gallery, entry.position, faces=faces), entry) for entry in one.entries]
            shown.append({"list": one, "query": query, "entries": entries})
        groups.append((group, shown))
    return Shown(content={"groups": groups})


def similarity_section(opened: Opened, embeddings: tuple[np.ndarray, np.ndarray]) -> Shown:
    """Returns the histograms of similarities.

    Args:
        opened: networks and images.
        embeddings: of query and gallery.
    """
    streams, notes = [], []
    clothes = False
    for stream in similarities.find_similarities(opened, embeddings):
        charts: list[dict[str, str]] = []
        for title, names in (
            ("same and different people", (similarities.DIFFERENT, similarities.SAME)),
            (
                "same and changed clothes",
                (similarities.DIFFERENT, similarities.SAME_CLOTHES, similarities.OTHER_CLOTHES),
            ),
        ):
            kinds = [stream.kinds[name] for name in names if name in stream.kinds]
            if not set(names[1:]) & set(stream.kinds):
                continue
            clothes = clothes or names[-1] == similarities.OTHER_CLOTHES
            said = "; ".join(f"{kind.name}: {kind.pairs} pairs, mean {kind.mean:.3f}" for kind in kinds)
            bars = [Bars(kind.name, kind.fractions) for kind in kinds]
            name = f"similarity-{stream.stream}-{len(charts)}"
            svg = draw_histogram(bars, stream.edges, "similarity", name, f"Similarity of {title}. {said}")
            charts.append({"title": f"{stream.stream}: {title}", "svg": svg})
        streams.append({"name": stream.stream, "kinds": stream.kinds, "tar": stream.tar, "charts": charts})
    if not clothes:
        notes.append("No pair of one person has known clothes, so same and changed clothes cannot be told apart.")
    return Shown(notes=notes, content={"streams": streams, "far": similarities.FAR})


def confusion_section(opened: Opened, view: View, budget: Budget, pictures: Pictures) -> Shown:
    """Returns the hardest confusions.

    Args:
        opened: networks and images.
        view: stream and protocol.
        budget: how many pairs.
        pictures: makes the pictures.
    """
    found = confusions.find_confusions(view, budget.pairs)
    faces = _faces(opened.trained)

    def pair(look: confusions.Look) -> tuple[Card, Card]:
        query = card(pictures, opened.query, look.query, faces=faces)
        return query, card(pictures, opened.gallery, look.gallery, faces=faces)

    content = {
        "found": found,
        "alike": [(look, *pair(look)) for look in found.alike],
        "people": [(one, [person_name(who) for who in one.people], *pair(one.example)) for one in found.people],
        "missed": [(one, *pair(one.look)) for one in found.missed],
    }
    notes = [] if budget.pairs else ["No pairs are shown: --images leaves no room for them."]
    return Shown(notes=notes, content=content)


def attention_section(opened: Opened, runs: Sequence[Run], budget: Budget, pictures: Pictures) -> Shown:
    """Returns the attention maps and regions of one run, or of two side by side.

    Args:
        opened: the first run's networks and images.
        runs: the run, and the one that it is compared with.
        budget: how many pictures.
        pictures: makes the pictures.
    """
    if reason := attention.unavailable(opened.trained):
        return Shown(missing=f"No attention maps: {reason}.")
    able = [run for run in runs if attention.unavailable(run.trained) is None]
    notes = [f"{run.name}: {attention.unavailable(run.trained)}." for run in runs if run not in able]
    split = opened.query
    count = min(_PHOTOS, budget.attention // (2 + sum(2 + attention.cuts_regions(run.trained) for run in able)))
    shown = attention.choose(split, count)
    maps = [attention.attention_maps(run.trained, opened.config, split, shown) for run in able]
    if not split.has_mask.any():
        notes.append("No query image has a mask, so where clothing is is not known.")
    if not count:
        notes.append("No maps are shown: --images leaves no room for them.")
    low = min((float(one.attention.min()) for one in maps if one.attention.size), default=0.0)
    high = max((float(one.attention.max()) for one in maps if one.attention.size), default=1.0)
    index = [int(i) for i in maps[0].at if all(i in one.at for one in maps)]
    photos = [_attention_photo(opened, i, able, maps, (low, high), pictures) for i in index]
    content = {
        "photos": photos,
        "attends": any(one.attention.size for one in maps),
        "low": low,
        "high": high,
        "means": [{"name": run.name, "maps": one} for run, one in zip(able, maps, strict=True)],
    }
    return Shown(notes=notes, content=content)


def _attention_photo(
    opened: Opened,
    index: int,
    runs: Sequence[Run],
    maps: Sequence[Maps],
    limits: tuple[float, float],
    pictures: Pictures,
) -> dict[str, Any]:
    split = opened.query
    first = card(pictures, split, index, faces=None)
    cells: list[tuple[str, str, Picture]] = [("photo", first.alt, first.picture)]
    if first.picture.problem:
        return {"card": first, "cells": cells}
    photo = decode_image(split[index].body)
    if split.has_mask[index]:
        picture = pictures.picture(tinted(photo, _mask(opened, index)))
        cells.append(("clothing", "clothing in orange, all else grey", picture))
    else:
        cells.append(("clothing", "", Picture("", *photo.size, "no mask")))
    for run, found in zip(runs, maps, strict=True):
        at = int(np.flatnonzero(found.at == index)[0])
        if (values := found.attention[at]).size:
            picture = pictures.picture(overlaid(photo, values, *limits))
            alt = f"attention map of {run.name}, from {values.min():.2f} to {values.max():.2f}"
            cells.append((f"attention, {run.name}", alt, picture))
            values = found.refined[at]
            picture = pictures.picture(overlaid(photo, values, float(values.min()), float(values.max())))
            cells.append((f"refined features, {run.name}", f"mean refined features of {run.name}", picture))
        if len(boxes := found.boxes[at]):
            alt = f"the {len(boxes)} regions that {run.name} looks at by themselves, outlined"
            cells.append((f"regions, {run.name}", alt, pictures.picture(outlined(photo, boxes))))
    return {"card": first, "cells": cells}


def _mask(opened: Opened, index: int) -> np.ndarray:
    """Returns [height, width], 0 where there is clothing, at the size that the network is shown."""
    batches = pipeline.eval_batches(dataset.subset(opened.query, [index]), opened.config, 1, ("cloth_mask",))
    return np.asarray(next(batches)["cloth_mask"][0])


def _faces(trained: LoadedNetworks) -> str | None:
    return next((stream.image for stream in trained.streams if stream.reads_face), None)
