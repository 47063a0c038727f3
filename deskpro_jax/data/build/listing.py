"""Lists what a dataset is made from, in whichever layout its files lie."""

from __future__ import annotations

from pathlib import Path

from deskpro_jax.data.build import manifest, parts, prepared
from deskpro_jax.data.build.sources import Listing
from deskpro_jax.data.build.sums import read_sums, with_sums
from deskpro_jax.data.datasets import layouts, naming
from deskpro_jax.errors import InputError, MissingInputError

FOLDER = "folder"


def list_dataset(name: str, raw_dir: Path | None, parts_dir: Path | None = None, with_val: bool = False) -> Listing:
    """Lists the images of a dataset with their labels and files; opens none of them.

    Where `raw_dir` or `parts_dir` holds a list of checksums (`sums.SUMS`), the sources carry them.

    Args:
      name: One of `dataset.NAMES`.
      raw_dir: The authors' layout, prepared folders (with imgs/), or for `folder` a CSV or the folder that holds it.
      parts_dir: Masks and faces for an authors' layout or a CSV (`parts.join`), or None.
      with_val: Adds the validation images of PRCC to train.

    Returns:
      The listing; `origin["source"]` names the layout.

    Raises:
      MissingInputError: If files or folders are missing; says what to get and where to put it.
      InputError: If they do not fit together.
    """
    found = _list(name, raw_dir, parts_dir, with_val)
    sums: dict[str, str] = {}
    for given in (raw_dir, parts_dir):
        sums |= read_sums(given.parent if given is not None and given.is_file() else given)
    found.sources, absent = with_sums(found.sources, sums)
    found.findings += absent
    return found


def _list(name: str, raw_dir: Path | None, parts_dir: Path | None, with_val: bool) -> Listing:
    if raw_dir is None and name == FOLDER:
        text = (
            f"set it (--raw) to a CSV with the columns {', '.join(manifest.REQUIRED)}, or to the folder that holds it"
        )
        raise MissingInputError(f"dataset {name}: data.raw_dir is empty; {text}")
    if raw_dir is None:
        raise MissingInputError(naming.how_to_get(name, None))
    if name == FOLDER:
        if with_val:
            raise InputError("dataset folder has no validation images to add to train: leave --with-val out")
        found = manifest.list_manifest(raw_dir, parts_dir)
        found.origin |= {"source": "manifest", "camera": "as the manifest says", "clothes": "as the manifest says"}
        return found
    if name not in layouts.LAYOUTS or prepared.is_prepared(raw_dir):
        for given, flag in ((parts_dir, "data.parts_dir (--parts)"), (with_val, "--with-val")):
            if given:
                raise InputError(f"{raw_dir} holds prepared folders, which have masks and faces: leave {flag} out")
        found = prepared.list_prepared(raw_dir, name)
        found.origin["source"] = "prepared folders"
        return found
    photos, findings = layouts.list_photos(name, raw_dir, with_val)
    found = parts.join(photos, parts_dir, name) if parts_dir else parts.without_parts(photos)
    layout = layouts.LAYOUTS[name]
    found.findings = findings + found.findings
    found.notes += [] if with_val else layouts.left_out(name, raw_dir)
    found.origin |= {"source": "authors' layout", "camera": layout.camera, "clothes": layout.clothes}
    if layout.extra:
        found.origin["with_val"] = with_val
    return found
