"""Synthetic cloth-changing re-ID: identities, images and splits, all drawn from one seed."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator

import numpy as np

from deskpro_jax.data.schema import SPLITS, Example
from deskpro_jax.data.synthetic.camera import COUNT, Camera, make_cameras
from deskpro_jax.data.synthetic.person import Person, sample_person
from deskpro_jax.data.synthetic.render import render
from deskpro_jax.errors import InputError

# What a random stream is for; the second number of every seed sequence.
_CAMERAS, _TRAITS, _LAYOUT, _IMAGE = range(4)
_TRAIN, _TEST = range(2)


@dataclasses.dataclass(frozen=True)
class SyntheticSize:
    """How much is drawn; images are totals, spread over the identities as evenly as they go."""

    train_identities: int
    train_images: int
    test_identities: int
    query_images: int
    gallery_images: int

    def images(self, split: str, person: int) -> int:
        """Number of images of the person-th identity (from 0) in a split."""
        total, people = {
            "train": (self.train_images, self.train_identities),
            "query": (self.query_images, self.test_identities),
            "gallery": (self.gallery_images, self.test_identities),
        }[split]
        return total // people + (person < total % people)


SIZES = {
    "tiny": SyntheticSize(8, 48, 4, 8, 16),
    # 24 images a person: with twelve, the body stream learns the images by heart before it learns the people.
    "small": SyntheticSize(120, 2880, 50, 100, 300),
    "full": SyntheticSize(490, 9021, 100, 887, 934),  # the numbers of Celeb-reID-light
    "pretraining": SyntheticSize(600, 14400, 50, 100, 300),  # many people, for networks that others start from
}


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


@functools.lru_cache(maxsize=4)
def _cameras(seed: int) -> tuple[Camera, ...]:
    return make_cameras(_rng(seed, _CAMERAS))


def draw_person(seed: int, train: bool, person: int) -> Person:
    """Returns the traits of the person-th identity (from 0) of the train or the test identities.

    Args:
        seed: of the dataset.
        train: whether a train identity is meant.
        person: number within its group, the same person in every size.
    """
    return sample_person(_rng(seed, _TRAITS, _TRAIN if train else _TEST, person))


def _draw_images(size: str, seed: int, split: str, person: int) -> list[Example]:
    """All images of one identity in one split, in order."""
    plan = SIZES[size]
    train = split == "train"
    group = _TRAIN if train else _TEST
    first = plan.images("query", person) if split == "gallery" else 0
    traits = draw_person(seed, train, person)
    # Cameras take turns in an order of the identity's own, so that every query meets its person in other cameras.
    turns = _rng(seed, _LAYOUT, group, person).permutation(COUNT)
    identity = person + 1 if train else plan.train_identities + person + 1
    examples = []
    for image in range(first, first + plan.images(split, person)):
        camera = int(turns[image % COUNT])
        drawn = render(traits, _cameras(seed)[camera], _rng(seed, _IMAGE, group, person, image))
        examples.append(
            Example(
                image_id=f"{identity:04d}_c{camera + 1}_{image:06d}",
                body=drawn.body,
                parts=drawn.parts,
                face=drawn.face,
                restored_face=drawn.restored_face,
                identity=identity,
                camera=camera + 1,
                clothes=image,  # every image shows other clothes
            )
        )
    return examples


def generate(size: str, seed: int, workers: int = 0) -> Iterator[tuple[str, Example]]:
    """Draws the dataset, split by split, identity by identity.

    Args:
        size: key of SIZES.
        seed: 0 or greater; the same seed gives the same bytes with the same versions of numpy and Pillow.
        workers: processes that draw; 0 draws in this one. The result does not depend on it.

    Returns:
        Pairs of split name and example. Labels follow the scheme "lip"; identities of train and test differ.

    Raises:
        InputError: an unknown size, or a negative seed or number of workers.
    """
    if size not in SIZES:
        raise InputError(f"size {size!r} of the synthetic dataset is unknown; choose one of {', '.join(SIZES)}")
    if seed < 0:
        raise InputError(f"the seed of the synthetic dataset is {seed}, expected 0 or greater; choose another")
    if workers < 0:
        raise InputError(f"workers is {workers}, expected 0 or greater; 0 draws in the calling process")
    return _generate(size, seed, workers)


def _generate(size: str, seed: int, workers: int) -> Iterator[tuple[str, Example]]:
    plan = SIZES[size]
    people = {"train": plan.train_identities, "query": plan.test_identities, "gallery": plan.test_identities}
    jobs = [(split, person) for split in SPLITS for person in range(people[split])]
    if workers == 0:
        for split, person in jobs:
            for example in _draw_images(size, seed, split, person):
                yield split, example
        return
    context = multiprocessing.get_context("spawn")  # forking a process that runs jax's threads can hang
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        pending: collections.deque[tuple[str, concurrent.futures.Future[list[Example]]]] = collections.deque()
        try:
            for split, person in jobs:
                pending.append((split, pool.submit(_draw_images, size, seed, split, person)))
                if len(pending) > 4 * workers:  # bounds the finished images that wait in memory
                    ready, future = pending.popleft()
                    for example in future.result():
                        yield ready, example
            while pending:
                ready, future = pending.popleft()
                for example in future.result():
                    yield ready, example
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
