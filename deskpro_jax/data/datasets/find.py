"""Finds datasets and their protocols by name: the package's own, and those of user modules as "module:name"."""

from __future__ import annotations

from collections.abc import Sequence

from deskpro_jax.config import user_modules
from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.data.datasets import (
    ccvid,
    celeb,
    celeb_light,
    deepchange,
    folder,
    last,
    ltcc,
    mevid,
    prcc,
    synthetic,
    vc_clothes,
)
from deskpro_jax.data.datasets.protocols import Protocol
from deskpro_jax.data.datasets.spec import DatasetSpec
from deskpro_jax.errors import InputError

SPECS = (
    *(synthetic.TINY, synthetic.SMALL, synthetic.FULL, synthetic.PRETRAINING),
    *(celeb.SPEC, celeb_light.SPEC, prcc.SPEC, ltcc.SPEC, vc_clothes.SPEC),
    *(last.SPEC, deepchange.SPEC, ccvid.SPEC, mevid.SPEC, folder.SPEC),
)
NAMES = tuple(spec.name for spec in SPECS)
# Names under which people know the datasets, in lower case with _ for -.
_ALIASES = {"celeb_reid": "celeb", "celebreid": "celeb", "celeb_reid_light": "celeb_light", "vcclothes": "vc_clothes"}


def find_dataset(name: str, field: str = "data.name") -> DatasetSpec:
    """Finds a dataset.

    Args:
        name: one of `NAMES`, or "module:name" for a `DatasetSpec` in a user module (docs/forking.md).
        field: where the name was given, for errors.

    Returns:
        The dataset's spec.

    Raises:
        InputError: there is no such dataset (close matches are named), the user module does not have it, or it has the
            name of one of the package's own.
    """
    if ":" in name:
        spec = user_modules.find(field, name)
        if not isinstance(spec, DatasetSpec):
            raise InputError(f"{field} has {name!r}, which is a {type(spec).__name__}; expected a DatasetSpec.")
        if spec.name in NAMES and spec not in SPECS:
            raise InputError(f"{field} has {name!r}, named {spec.name!r} like a dataset of the package: rename it.")
        return spec
    for spec in SPECS:
        if spec.name == name:
            return spec
    question = did_you_mean(name, NAMES) or "correct the name."
    raise InputError(
        f"{field} has {name!r}: there is no such dataset; {question} Known: {', '.join(NAMES)}, and 'module:name' for "
        "a DatasetSpec in a module of your own."
    )


def dataset_name(text: str, field: str) -> str:
    """Returns the name of the dataset that is meant on a command line, e.g. celeb_light for Celeb-reID-light.

    Args:
        text: as it was given; "module:name" is returned as it is.
        field: the flag, for errors.

    Raises:
        InputError: there is no such dataset; close matches are named.
    """
    if ":" not in text:
        text = text.lower().replace("-", "_")
        text = _ALIASES.get(text, text)
    find_dataset(text, field)
    return text


def find_protocols(dataset: str, names: Sequence[str] = ()) -> tuple[Protocol, ...]:
    """Returns the protocols of a dataset, in the order they are reported.

    Args:
        dataset: as for `find_dataset`.
        names: names of protocols, also several in one text joined by commas; () means all of the dataset's.

    Returns:
        The protocols, in the order of `names` where there are any.

    Raises:
        InputError: the dataset or a protocol is unknown; close matches are named.
    """
    protocols = find_dataset(dataset).protocols
    known = {protocol.name: protocol for protocol in protocols}
    chosen = list(dict.fromkeys(name.strip() for text in names for name in text.split(",") if name.strip()))
    for name in chosen:
        if name not in known:
            question = did_you_mean(name, known) or "correct the name."
            raise InputError(f"dataset {dataset!r} has no protocol {name!r}; {question} Known: {', '.join(known)}.")
    return tuple(known[name] for name in chosen) if chosen else protocols
