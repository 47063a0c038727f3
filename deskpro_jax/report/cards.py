"""Cards of the page: the picture of an image and its labels."""

from __future__ import annotations

from typing import NamedTuple

from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.report.pictures import Picture, Pictures


class Card(NamedTuple):
    """An image of a split: its picture, its name, and its labels in words."""

    picture: Picture
    image_id: str
    person: str
    labels: str

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        return f"{self.person}, {self.labels}" if self.labels else self.person


def person_name(identity: int) -> str:
    """Returns the name of a person on the page."""
    return f"person {identity}" if identity >= 0 else "unknown person"


def card(pictures: Pictures, split: ReIDSplit, index: int, *, faces: str | None) -> Card:
    """Returns the card of an image.

    Args:
        pictures: makes the picture.
        split: where the image is.
        index: its position.
        faces: the kind of face that the networks read, "face" or "restored_face"; None where they read none.
    """
    labels = [f"{name} {value}" for name in ("camera", "clothes") if (value := int(getattr(split, name)[index])) >= 0]
    if faces is not None and not bool(split.has_face[index] if faces == "face" else split.has_restored_face[index]):
        labels.append("no face")
    person = person_name(int(split.identity[index]))
    return Card(pictures.photo(split, index), str(split.image_id[index]), person, ", ".join(labels))
