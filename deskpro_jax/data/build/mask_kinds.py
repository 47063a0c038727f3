"""Decides what kind of files the masks of a dataset are: from what the user says, else from a sample of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deskpro_jax.data import masks
from deskpro_jax.data.build.image_sources import DatasetListing, ImageSource
from deskpro_jax.data.masks import AUTO, MASK_KINDS, WHITE_OFF, MaskFile, read_mask
from deskpro_jax.data.schema import CLOTH_MASK, SCHEMES
from deskpro_jax.errors import InputError

OPTION = "--mask-kind (data.mask_kind), or the column mask_kind of a CSV"
_SAMPLE = 200  # masks that are looked at, evenly over the dataset
_NAMED = 3


def decide_mask_kind(listing: DatasetListing, mask_kind: str = AUTO) -> None:
    """Sets `parts_format` and the label scheme of a listing to what its masks are.

    One file can be ambiguous: 0 and 1 may be a mask or two labels. So a sample of the whole dataset decides. Label maps
    need a scheme: from `mask_kind`, the column of a CSV, or dataset.json.

    Args:
        listing: the images; its parts format and origin are changed, and notes added.
        mask_kind: one of `MASK_KINDS` that the user chose, or AUTO to decide from the files.

    Raises:
        InputError: the masks are label maps of an unknown scheme, of two kinds, or not what the user says.
    """
    if mask_kind not in (AUTO, *MASK_KINDS):
        raise InputError(
            f"--mask-kind (data.mask_kind) is {mask_kind!r}, expected one of {', '.join((AUTO, *MASK_KINDS))}"
        )
    stated = listing.parts_format
    if mask_kind != AUTO and (stated.stated or not stated.masks) and mask_kind != stated.kind:
        raise InputError(
            f"--mask-kind (data.mask_kind) is {mask_kind}, the data says {stated.kind} (column mask_kind, prepare.json "
            "or dataset.json): correct one of them"
        )
    sources = [source for source in listing.sources if source.parts is not None]
    if not sources:
        return
    if stated.masks:
        sample = _read_sample(sources)
        known = stated.kind if mask_kind == AUTO and stated.stated else mask_kind
        kind = _recognised(sample, listing) if known == AUTO else known
        alpha = any(mask.from_alpha for _, mask in sample)
        sure = known != AUTO or kind in SCHEMES
        listing.parts_format = dataclasses.replace(stated, kind=kind, stated=sure, alpha=alpha)
        listing.origin["mask_kind"] = kind
    listing.origin["label_scheme"] = listing.parts_format.scheme


def _read_sample(sources: Sequence[ImageSource]) -> list[tuple[str, MaskFile]]:
    """Returns masks from all over the dataset, each with its file; those that can't be read are left out."""
    chosen = np.unique(np.linspace(0, len(sources) - 1, _SAMPLE).round().astype(int))
    sample = []
    for position in chosen:
        file = sources[position].parts
        assert file is not None
        try:
            sample.append((file, read_mask(Path(file).read_bytes())))
        except Exception:  # Pillow's decoders raise many kinds; every file is inspected when the examples are made
            continue
    return sample


def _recognised(sample: Sequence[tuple[str, MaskFile]], listing: DatasetListing) -> str:
    """Returns the kind of the masks of a sample."""
    files: dict[str, list[str]] = {}
    for file, mask in sample:
        files.setdefault(mask.content, []).append(file)
    labels, mask_files = files.get(masks.LABELS, []), files.get(masks.MASK, [])
    if labels and mask_files:
        raise InputError(
            f"of {len(sample)} masks, {len(mask_files)} are black and white, as {mask_files[0]}, and {len(labels)} are "
            f"label maps, as {labels[0]}: a dataset has one kind, write all of them as the same"
        )
    if labels:
        return _scheme(sample, labels, listing)
    if not mask_files and (dark := files.get(masks.NEARLY_BLACK)):
        raise InputError(
            f"no mask is white anywhere, and {len(dark)} of {len(sample)} are nearly black, as {dark[0]}: 0/1 masks "
            "and label maps can't be stored in a lossy format; write them as PNG"
        )
    if not mask_files and (binary := files.get(masks.BINARY)):
        listing.notes.append(
            f"{len(binary)} of {len(sample)} masks hold 0 and 1 only, as {binary[0]}: read as masks, 1 off the "
            f"clothes; if 1 is on the clothes or a label, say so with {OPTION}"
        )
    return WHITE_OFF


def _scheme(sample: Sequence[tuple[str, MaskFile]], labels: Sequence[str], listing: DatasetListing) -> str:
    """Returns the label scheme that dataset.json names.

    Raises:
        InputError: it names none.
    """
    stored = str(listing.origin.get("label_scheme", CLOTH_MASK.name))
    if stored != CLOTH_MASK.name:
        return stored
    values = [mask.values[mask.values < masks.VOID] for _, mask in sample if mask.content == masks.LABELS]
    highest = max(int(part.max(initial=0)) for part in values)
    fitting = [name for name, scheme in SCHEMES.items() if highest < len(scheme.labels)]
    if fitting:
        remedy = f"say which label scheme it is with {OPTION}: {', '.join(fitting)} would fit"
    else:
        remedy = f"no label scheme has so many labels ({', '.join(SCHEMES)}): write masks, black on the clothes"
    named = ", ".join(labels[:_NAMED])
    raise InputError(
        f"{len(labels)} of {len(sample)} masks are label maps, with labels up to {highest}, as {named}: {remedy}"
    )
