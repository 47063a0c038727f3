"""A dataset with a layout of its own: photos PERSON/CAMERA_OUTFIT_NUMBER.jpg in the folders train, query, gallery.

deskpro train --config docs/examples/new_dataset.py --workdir runs/new_dataset --config.data.raw_dir=DIR
"""

from deskpro_jax.configs import base, variants
from deskpro_jax.data.datasets.added import add_dataset
from deskpro_jax.data.datasets.layouts import Layout, Place
from deskpro_jax.data.datasets.protocols import Protocol

FILE = r"(?P<identity>\d+)/(?P<camera>\d+)_(?P<clothes>\d+)_(?P<frame>\d+)"
ID = "{identity}_{camera}_{clothes}_{frame}"
PLACES = tuple(Place(split, split, FILE, "PERSON/CAMERA_OUTFIT_NUMBER", ID) for split in ("train", "query", "gallery"))
add_dataset(
    "office",
    Layout("our own cameras", PLACES, camera="the office's cameras", clothes="outfits of one person"),
    (
        Protocol("other_camera", "images of the query's identity from the query's camera removed", "general"),
        Protocol("other_clothes", "and those in its clothes as well", "cc"),
    ),
)


def get_config(variant=None):
    """Returns the configuration; photos alone have neither masks nor faces, so the body stream is trained."""
    config = base.get_config()
    config.data.name = "office"
    return variants.apply(config, f"csa,{variant}" if variant else "csa")
