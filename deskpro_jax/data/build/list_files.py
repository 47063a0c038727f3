"""Lists the files that a dataset is built from, in whichever layout they are."""

from __future__ import annotations

from pathlib import Path

from deskpro_jax.data.build import authors_folders, join_parts, listed_photos, manifest, prepared_folders
from deskpro_jax.data.build.checksum_lists import read_sums, with_sums
from deskpro_jax.data.build.image_sources import DatasetListing
from deskpro_jax.data.build.mask_kinds import decide_mask_kind
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.datasets.spec import DatasetSpec
from deskpro_jax.data.masks import AUTO
from deskpro_jax.errors import InputError, MissingInputError


def list_dataset(
    name: str, raw_dir: Path | None, parts_dir: Path | None = None, with_val: bool = False, mask_kind: str = AUTO
) -> DatasetListing:
    """Lists the images of a dataset with their labels and files; opens none of them but a sample of the masks.

    Where `raw_dir` or `parts_dir` holds a list of checksums (`checksum_lists.SUMS`), the sources carry them.

    Args:
        name: of the dataset, as for `find_dataset`.
        raw_dir: the authors' layout, prepared folders (with imgs/), or for a dataset described by a manifest a CSV or
            the folder that holds it.
        parts_dir: masks and faces for an authors' layout or a CSV (`join_parts.join`), or None.
        with_val: adds the validation images of PRCC to train.
        mask_kind: one of `masks.MASK_KINDS`, or AUTO to decide from the files (`mask_kinds.decide_mask_kind`).

    Returns:
        The listing; `origin["source"]` names the layout.

    Raises:
        MissingInputError: files or folders are missing; the message names what to get and where to put it.
        InputError: they do not fit together.
    """
    listing = _list(find_dataset(name), raw_dir, parts_dir, with_val, mask_kind)
    decide_mask_kind(listing, mask_kind)
    sums: dict[str, str] = {}
    for path in (raw_dir, parts_dir):
        sums |= read_sums(path.parent if path is not None and path.is_file() else path)
    listing.sources, absent = with_sums(listing.sources, sums)
    listing.findings += absent
    return listing


def _list(
    spec: DatasetSpec, raw_dir: Path | None, parts_dir: Path | None, with_val: bool, mask_kind: str
) -> DatasetListing:
    if raw_dir is None and spec.manifest:
        text = (
            f"set it (--raw) to a CSV with the columns {', '.join(manifest.REQUIRED)}, or to the folder that holds it"
        )
        raise MissingInputError(f"dataset {spec.name}: data.raw_dir is empty; {text}")
    if raw_dir is None:
        raise MissingInputError(prepared_folders.how_to_get(spec, None))
    if spec.manifest:
        if with_val:
            raise InputError(f"dataset {spec.name} has no validation images to add to train: leave --with-val out")
        listing = manifest.list_manifest(raw_dir, parts_dir, mask_kind)
        listing.origin |= {"source": "manifest", "camera": spec.camera, "clothes": spec.clothes}
        return listing
    if not spec.has_layout or prepared_folders.is_prepared(raw_dir):
        for value, flag in ((parts_dir, "data.parts_dir (--parts)"), (with_val, "--with-val")):
            if value:
                raise InputError(f"{raw_dir} holds prepared folders, which have masks and faces: leave {flag} out")
        listing = prepared_folders.list_prepared(raw_dir, spec)
        listing.origin["source"] = "prepared folders"
        return listing
    notes: list[str] = []
    if spec.read_photos is None:
        photos, findings = authors_folders.list_photos(spec, raw_dir, with_val)
    elif with_val:
        raise InputError(f"dataset {spec.name} has no validation images to add to train: leave --with-val out")
    else:
        photos, findings, notes = listed_photos.list_photos(spec, raw_dir)
    if parts_dir:
        listing = join_parts.join(photos, parts_dir, spec.prepared.cameras_from_gallery, mask_kind)
    else:
        listing = join_parts.without_parts(photos)
    listing.findings = findings + listing.findings
    listing.notes += notes if with_val else [*notes, *authors_folders.left_out(spec, raw_dir)]
    listing.origin |= {"source": "authors' layout", "camera": spec.camera, "clothes": spec.clothes}
    if spec.validation_folders:
        listing.origin["with_val"] = with_val
    return listing
