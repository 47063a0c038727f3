"""The published sizes are those of the papers, and a difference is told by split and identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from author_trees import write
from deskpro_jax.data.build import published_sizes
from deskpro_jax.data.build.image_sources import ImageSource
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.datasets.spec import Size

PUBLISHED = ("celeb", "celeb_light", "prcc", "ltcc", "vc_clothes", "last", "deepchange")


def published(dataset: str, with_val: bool = False) -> tuple[Size, ...]:
    return find_dataset(dataset).published_sizes(with_val)


def differences(dataset: str, images: list[ImageSource], with_val: bool = False) -> list[str]:
    return published_sizes.differences(find_dataset(dataset), images, with_val)


def sources(split: str, identities: dict[int, list[int]]) -> list[ImageSource]:
    """Returns images with the given cameras (image numbers) of the given identities."""
    return [
        ImageSource(split, f"{identity}_{camera}", identity, camera, -1, "x")
        for identity, cameras in identities.items()
        for camera in cameras
    ]


def whole(dataset: str, with_val: bool = False) -> list[ImageSource]:
    """Returns as many images as were published."""
    result = []
    for size in published(dataset, with_val):
        if size.split == "test":  # query and gallery, which are there
            continue
        people = size.identities or (521 if dataset == "deepchange" else 10)
        for image in range(size.images):
            who, number = image % people + 1, image // people + 1
            if size.split == "gallery":
                number += 1000  # numbers go on after those of the query
            camera = number if size.camera is None else size.camera
            result.append(ImageSource(size.split, f"{size.camera}_{who}_{number}", who, camera, -1, "x"))
    return result


def test_sizes_are_those_of_the_papers() -> None:
    figures = {
        name: [(size.split, size.images, size.identities) for size in published(name)]
        for name in (*PUBLISHED, "folder", "synthetic_tiny")
    }
    assert figures == {
        "celeb": [("train", 20208, 632), ("query", 2972, 420), ("gallery", 11006, 420)],
        "celeb_light": [("train", 9021, 490), ("query", 887, 100), ("gallery", 934, 100)],
        "prcc": [("train", 17896, 150), ("query", 3873, None), ("query", 3543, None), ("gallery", 3384, 71)],
        "ltcc": [("train", 9576, 77), ("query", 493, None), ("gallery", 7050, 75)],
        "vc_clothes": [("train", 9449, 256), ("query", 1020, None), ("gallery", 8591, None)],
        "last": [("train", 71248, 5000), ("query", 10176, 5805), ("gallery", 125353, 5806)],
        "deepchange": [("train", 75083, 450), ("query", 17527, None), ("gallery", 62956, None), ("test", 80483, 521)],
        "folder": [],
        "synthetic_tiny": [],
    }
    assert published("prcc", with_val=True)[0] == Size("train", 17896 + 5002, 150)


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_what_is_as_published_is_in_order(dataset: str) -> None:
    assert differences(dataset, whole(dataset)) == []
    assert differences(dataset, whole(dataset)[1:])[0].endswith("(1 images missing)")
    more = [*whole(dataset), ImageSource("train", "new", 1, 5000, -1, "x")]
    assert differences(dataset, more)[0].endswith("(1 images too many)")


def test_prcc_is_counted_by_camera_and_with_val() -> None:
    images = whole("prcc")
    without_one = [s for s in images if s.camera != 1 or s.split != "query" or s.identity != 1]
    lines = differences("prcc", without_one)
    assert (
        "query, camera B (same clothes): 3,485 images of 9 identities; published 3,873 images (388 images missing)"
        in "\n".join(lines)
    )
    assert not any("camera C" in line for line in lines)
    assert differences("prcc", whole("prcc", with_val=True), with_val=True) == []
    assert "5,002 images missing" in differences("prcc", images, with_val=True)[0]


def test_prcc_as_its_authors_distribute_it_is_accepted() -> None:
    rest = [source for source in whole("prcc") if source.split != "query"]
    camera_b = [ImageSource("query", f"b{i}", i % 71 + 1, 1, -1, "x") for i in range(3873)]
    camera_c = [ImageSource("query", f"c{i}", i % 71 + 1, 2, -1, "x") for i in range(3543)]
    assert differences("prcc", [*rest, *camera_b, *camera_c]) == []


def test_missing_and_doubled_images_are_told_by_identity() -> None:
    images = [
        *sources("train", {1: [1, 2, 3, 7], 2: [1, 2, 2], 4: [1]}),
        *sources("query", {1: [2], 3: [1]}),
        *sources("gallery", {1: [1, 4], 2: [1]}),
    ]
    assert differences("celeb", images) == [
        (
            "train: 8 images of 3 identities; published 20,208 images of 632 identities "
            "(20,200 images missing, 629 identities missing)"
        ),
        "  identities without images: 3 (between 1 and 4)",
        "  identities whose image numbers have gaps in train: 1 (without 4-6 of 1 to 7)",
        "  identities with an image number twice in train: 2 (2)",
        "  images by identity: 1: 4, 2: 3, 4: 1",
        (
            "query: 2 images of 2 identities; published 2,972 images of 420 identities "
            "(2,970 images missing, 418 identities missing)"
        ),
        "  identities without images: 2 (between 1 and 3)",
        "  identities whose image numbers have gaps in query and gallery: 1 (without 3 of 1 to 4)",
        "  identities in query but not in gallery: 3",
        "  images by identity: 1: 1, 3: 1",
        (
            "gallery: 3 images of 2 identities; published 11,006 images of 420 identities "
            "(11,003 images missing, 418 identities missing)"
        ),
        "  identities whose image numbers have gaps in query and gallery: 1 (without 3 of 1 to 4)",
        "  identities in gallery but not in query: 2",
        "  images by identity: 1: 2, 2: 1",
    ]


def test_a_dataset_of_ones_own_has_no_published_size(tmp_path: Path) -> None:
    write("folder", tmp_path)
    assert differences("folder", list_dataset("folder", tmp_path).sources) == []
