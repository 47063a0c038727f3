"""Where the files of prepared datasets come from, which folders they are in and how they are named."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from deskpro_jax.data.datasets.layouts import LAYOUTS, expected_folders
from deskpro_jax.errors import MissingInputError

TREES = ("imgs", "lr_face", "hr_face", "mask")
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


class Names(NamedTuple):
    """How a dataset names its files, and where to get it."""

    pattern: str
    expected: str
    origin: str


_WITH_C = (r"(\d+)_c(\d+)_([\w-]+)", "PID_cCAM_FRAME, as in 0007_c2_000013")
_WITHOUT_C = (r"(\d+)_(\d+)_([\w-]+)", "PID_CAM_FRAME, as in 7_2_13")
_CELEB = "https://github.com/Huang-3/Celeb-reID"
NAMES = {
    "celeb": Names(*_WITH_C, origin=_CELEB),
    "celeb_light": Names(*_WITHOUT_C, origin=_CELEB),
    "prcc": Names(*_WITH_C, origin="https://www.isee-ai.cn/~yangqize/clothing.html"),
    "ltcc": Names(*_WITH_C, origin="https://naiq.github.io/LTCC_Perosn_ReID.html"),
    "vc_clothes": Names(*_WITH_C, origin="https://wanfb.github.io/dataset.html"),
}


def names_of(dataset: str) -> Names:
    """Returns how a dataset names its files; a drawn one as Celeb-reID does."""
    return NAMES.get(dataset) or Names(*_WITH_C, origin="python -m deskpro_jax.data.layouts")


def how_to_get(dataset: str, missing: Path | None) -> str:
    """Returns the text of the error for prepared folders that are not there, or for no folder at all."""
    if missing is None and dataset in LAYOUTS:
        return (
            f"dataset {dataset}: data.raw_dir is empty. Get the photos ({LAYOUTS[dataset].origin}) and set "
            f"data.raw_dir (--raw) to the folder with {expected_folders(dataset)} in it, and data.parts_dir (--parts) "
            f"to masks and faces made from them; or data.raw_dir to prepared folders ({'/, '.join(TREES)}/), which "
            "have all (https://github.com/KimbingNg/DeskPro)"
        )
    found = "data.raw_dir is empty" if missing is None else f"folder {missing} is missing"
    return (
        f"dataset {dataset}: {found}. Get the photos ({names_of(dataset).origin}) and the masks and faces made from "
        "them (the prepared archive linked at https://github.com/KimbingNg/DeskPro holds all), and set data.raw_dir to "
        f"a folder with {'/, '.join(TREES)}/, each with {'/, '.join(FOLDERS.values())}/ in it (empty where there are "
        f"none), and files named {names_of(dataset).expected} with .jpg, the same name in every tree"
    )


def check_prepared(raw_dir: Path | None, dataset: str) -> None:
    """Raises MissingInputError, saying what to get and where to put it, unless all folders are there."""
    if raw_dir is None:
        raise MissingInputError(how_to_get(dataset, None))
    for folder in (raw_dir / tree / name for tree in TREES for name in FOLDERS.values()):
        if not folder.is_dir():
            raise MissingInputError(how_to_get(dataset, folder))
