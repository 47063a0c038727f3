"""A dataset with a layout of its own: photos PERSON/CAMERA_OUTFIT_NUMBER.jpg in the folders train, query, gallery.

deskpro train --config docs/examples/new_dataset.py --workdir runs/new_dataset --config.data.raw_dir=DIR
"""

from deskpro_jax.configs import base, variants
from deskpro_jax.extensions import DatasetSpec, PhotoFolder, Protocol

FILE = r"(?P<identity>\d+)/(?P<camera>\d+)_(?P<clothes>\d+)_(?P<frame>\d+)"
ID = "{identity}_{camera}_{clothes}_{frame}"
SPEC = DatasetSpec(
    "office",
    (
        Protocol("other_camera", "images of the query's identity from the query's camera removed", "general"),
        Protocol("other_clothes", "and those in its clothes as well", "cc"),
    ),
    "our own cameras",
    camera="the office's cameras",
    clothes="outfits of one person",
    folders=tuple(
        PhotoFolder(split, split, FILE, "PERSON/CAMERA_OUTFIT_NUMBER", ID) for split in ("train", "query", "gallery")
    ),
)


def get_config(variant=None):
    """Returns the configuration; photos alone have neither masks nor faces, so the body stream is trained."""
    config = base.get_config()
    config.data.name = "new_dataset:SPEC"
    return variants.apply(config, f"csa,{variant}" if variant else "csa")
