"""Writes the pictures of docs/synthetic.md: `python docs/images/draw_people.py`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from deskpro_jax.data.synthetic.camera import COUNT, make_cameras
from deskpro_jax.data.synthetic.generate import draw_person
from deskpro_jax.data.synthetic.person import HAIR_RANGES, Person
from deskpro_jax.data.synthetic.render import Rendering, render

SEED, PEOPLE, IMAGES = 0, 3, 6
BODY, FACE, GAP = (128, 256), 62, 6


def open_image(file: bytes | None) -> Image.Image:
    """Returns an image, grey where there is none."""
    return Image.open(io.BytesIO(file)) if file else Image.new("RGB", (FACE, FACE), (225, 225, 225))


def card(drawn: Rendering) -> Image.Image:
    """Returns a picture of one image: the body, below it the face as photographed and restored."""
    picture = Image.new("RGB", (BODY[0], BODY[1] + FACE + 4), "white")
    picture.paste(open_image(drawn.body), (0, 0))
    picture.paste(open_image(drawn.face).resize((FACE, FACE), Image.Resampling.NEAREST), (0, BODY[1] + 4))
    picture.paste(open_image(drawn.restored_face).resize((FACE, FACE)), (BODY[0] - FACE, BODY[1] + 4))
    return picture


def sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Returns pictures of one size in rows."""
    width, height = rows[0][0].size
    whole = Image.new("RGB", (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            whole.paste(picture, (column * (width + GAP), row * (height + GAP)))
    return whole


def look_alikes(people: Sequence[Person], count: int) -> list[Person]:
    """Returns people of the same skin, hair and beard whose hair is cut in the most similar ways."""
    first = people[0]
    alike = [person for person in people if _colours(person) == _colours(first)]

    def difference(person: Person) -> float:
        ends = [(getattr(person.hair, name), getattr(first.hair, name)) for name in HAIR_RANGES]
        ranges = HAIR_RANGES.values()
        return sum(abs(a - b) / (high - low) for (a, b), (low, high) in zip(ends, ranges, strict=True))

    return sorted(alike, key=difference)[:count]


def _colours(person: Person) -> tuple[object, ...]:
    return person.skin, person.hair_colour, person.beard > 0


def main(folder: Path) -> None:
    """Writes both pictures into a folder."""
    cameras = make_cameras(np.random.default_rng(SEED))

    def photos(person: Person, number: int, images: int) -> list[Image.Image]:
        return [
            card(render(person, cameras[k % COUNT], np.random.default_rng((SEED, number, k)))) for k in range(images)
        ]

    people = [draw_person(SEED, False, k) for k in range(300)]
    rows = [photos(person, number, IMAGES) for number, person in enumerate(people[:PEOPLE])]
    sheet(rows).save(folder / "drawn_people.jpg", quality=88)
    alike = look_alikes(people, IMAGES)
    pairs = [photos(person, 1000 + number, 2) for number, person in enumerate(alike)]
    sheet([[pair[row] for pair in pairs] for row in range(2)]).save(folder / "look_alikes.jpg", quality=88)


if __name__ == "__main__":
    main(Path(__file__).parent)
