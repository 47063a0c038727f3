"""Embeds photos with trained networks: files, Pillow images or arrays in, an array of embeddings out."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from deskpro_jax.config import expect
from deskpro_jax.data.images import Photo, UnreadableError, open_photo, read_photo
from deskpro_jax.data.load.decoding import INTERPOLATIONS, resize
from deskpro_jax.embedding.embedding_set import settings_of
from deskpro_jax.embedding.faces import FaceFinder, open_finder
from deskpro_jax.errors import InputError, RunError
from deskpro_jax.evaluation import evaluate
from deskpro_jax.models.contract import Network
from deskpro_jax.runtime import cores, sharding
from deskpro_jax.runtime.forking import refuse_after_fork
from deskpro_jax.workdir.networks import Size, load_networks

Pair = tuple[Photo, Photo | None]  # a photo and its face
_NOT_FINITE = "the networks give NaN or infinity for it: compute in float32 (--dtype), or use other weights"
_WAITING = 1 << 30  # bytes of photos in full size that may wait for their faces to be looked for

_compiled = functools.lru_cache(maxsize=8)(evaluate.make_embed)  # embedders of one network share what was compiled
# One thread at a time compiles and starts programs: the devices have to get those that all of them take part in, in
# one order, and threads that come together would each compile.
_starting = threading.Lock()


class Block(NamedTuple):
    """What `Embedder.stream` gives for a batch of photos.

    Attributes:
        embeddings: [photos, dimension] float32, zeros where a photo cannot be read.
        has_face: [photos] bool, whether the face is part of the embedding.
        failures: position in the block -> why that photo, or its face, cannot be read or has no finite embedding.
        remarks: position in the block -> names in `image_report.KINDS` of what is worth knowing of that photo.
        sha256: position in the block -> checksum of that photo's file.
    """

    embeddings: np.ndarray
    has_face: np.ndarray
    failures: dict[int, str]
    remarks: Mapping[int, tuple[str, ...]] = MappingProxyType({})
    sha256: Mapping[int, str] = MappingProxyType({})


class _Decoded(NamedTuple):
    """A batch on the host; `photos` in full size where faces have to be looked for, by row."""

    batch: dict[str, np.ndarray]
    used: int
    failures: dict[int, str]
    remarks: dict[int, tuple[str, ...]]
    sha256: dict[int, str]
    photos: dict[int, np.ndarray]


class Embedder:
    """Trained networks that turn photos of people into embeddings, as evaluation computes them.

    It may be used by several threads at once, each of which decodes its own photos; faces are looked for by one at a
    time. A process that is forked after JAX has started cannot use it: start processes with "spawn".

    Attributes:
        streams: names of the streams ("face", "body"), in the order of an embedding.
        parts: number of parts of an embedding, each of unit length or zero.
        similarity: how two embeddings are compared: streams, parts and their weights, the rule for missing faces.
        dimension: length of an embedding.
        face_field: what the face stream reads, "face" as photographed or "restored_face"; None without that stream.
        body_size: height and width that photos are resized to.
        face_size: height and width that faces are resized to.
        interpolation: Pillow's filter that resizes them, "bilinear" or "bicubic".
        flip: whether the features of the mirrored image are added.
        dtype: of the computation.
        batch: photos computed at a time, over all devices.
        missing_face: how a photo without a face is to be compared, one of `ranking.MISSING_FACE`.
        checksum: SHA-256 of all numbers in the networks that an embedding depends on.
        sizes_known: False where the sizes are the paper's because the weights do not say theirs.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        face: str | None = None,
        flip: bool | None = None,
        dtype: str | None = None,
        batch: int | None = None,
        body_size: Size | None = None,
        face_size: Size | None = None,
        detector: str | Path | None = None,
        find_faces: FaceFinder | None = None,
        head_bottom: float | None = None,
        head_side: float | None = None,
        threads: int | None = None,
        report: str | None = None,
        role: str | None = None,
        os_streams: str | None = None,
        weights: str | None = None,
    ):
        """Reads the networks and puts them on all devices of this process; what is None is as they were trained.

        Args:
            source: a workdir, a converted workdir, or a weights file (safetensors, PyTorch).
            face: "student", "teacher" (reads restored faces) or "none".
            flip: whether to add the features of the mirrored image.
            dtype: of the computation, "float32" or "bfloat16".
            batch: photos at a time; rounded up to a multiple of the devices. A batch is always padded to it.
            body_size: height and width of photos; the paper's 384 x 128 where a file does not say.
            face_size: height and width of faces; the paper's 224 x 224 where a file does not say.
            detector: weights of a RetinaFace, which looks for the faces of photos that none is given for, and frames
                them as the data preparation does by default.
            find_faces: a function that looks for faces in place of a detector.
            head_bottom: fraction of a photo's height, from the top, in which the detector looks for the person's face;
                None for that of the data preparation.
            head_side: fraction of the width that is left out on either side; None for that of the data preparation.
            threads: that decode; None for the number of processors, 16 at most.
            report: checkpoint of a workdir, one of `deskpro_jax.checkpoints.selection.REPORTS`.
            role: which network a file holds, where its names do not say so: "body", "student" or "teacher".
            os_streams: OSBlock streams, where a file does not show them: "abcd" or "aacd".
            weights: which weights of a file that has "plain" and "ema" ones; None for the plain ones, with a warning.

        Raises:
            InputError: the source cannot be used, or an argument has no usable value.
            MissingInputError: there is no such file, folder or checkpoint.
            RunError: the process was forked after JAX had started.
        """
        for name, value in (("batch", batch), ("threads", threads)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; expected at least 1.")
        if detector is not None and find_faces is not None:
            raise InputError("detector and find_faces are both given: leave out one of them.")
        for name, given in (("body_size", body_size), ("face_size", face_size)):
            if given is not None and (len(given) != 2 or min(given) < 1):
                raise InputError(f"{name} is {given}; expected height and width in pixels.")
        loaded = load_networks(
            source, face=face, dtype=dtype, report=report, role=role, os_streams=os_streams, weights=weights
        )
        config = loaded.config
        self._mesh = Mesh(np.asarray(jax.local_devices()), (sharding.DATA_AXIS,))
        self._networks = loaded.networks
        self._variables = [sharding.put_replicated(self._mesh, values) for values in loaded.variables]
        self._specs = loaded.streams
        self.streams, self.face = tuple(spec.name for spec in self._specs), loaded.face
        self.dtype, self.checksum = str(config.model.dtype), loaded.checksum
        self.missing_face = config.eval.missing_face
        self.similarity = evaluate.similarity_of(self._specs, self.missing_face)
        self.parts = self.similarity.parts
        self.dimension = sum(spec.width for spec in self._specs)
        self.face_field = next((spec.image for spec in self._specs if spec.reads_face), None)
        self.flip = bool(config.eval.flip) if flip is None else flip
        self.body_size, self.face_size = body_size or loaded.sizes["body"], face_size or loaded.sizes["face"]
        self.interpolation = expect.choice(config, "data.interpolation", tuple(INTERPOLATIONS))
        self._resize = functools.partial(resize, interpolation=self.interpolation)
        self.sizes_known = loaded.record.sizes_known or None not in (body_size, face_size)
        self.batch = -(-(batch or config.eval.batch) // self._mesh.size) * self._mesh.size
        self._threads = threads or min(16, cores.count())
        if self.face_field == "restored_face" and (find_faces is not None or detector is not None):
            raise InputError("the face teacher reads restored faces, which no detector gives: prepare them before.")
        fractions = {"head_bottom": head_bottom, "head_side": head_side}
        region = {name: value for name, value in fractions.items() if value is not None}
        if region and detector is None:
            raise InputError(f"{' and '.join(region)} say where a detector looks: give a detector, or leave them out.")
        if detector is not None and self.face_field:
            find_faces = open_finder(detector, **region)
        self._find_faces = find_faces if self.face_field else None
        self._finding = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise RunError(
            "an Embedder cannot be sent to another process: send the path of its networks, and open it there."
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the numbers of an embedding, as JSON values."""
        return {
            "model_checksum": self.checksum,
            **settings_of(self.similarity),
            "face": self.face,
            "dimension": self.dimension,
            "body_size": list(self.body_size),
            "face_size": list(self.face_size),
            "flip": self.flip,
            "dtype": self.dtype,
            "missing_face": self.missing_face,
            # Earlier versions had no other filter: their outputs go on.
            **({} if self.interpolation == "bilinear" else {"interpolation": self.interpolation}),
        }

    def embed(self, images: Iterable[Photo], faces: Iterable[Photo | None] | None = None) -> np.ndarray:
        """Embeds photos.

        Args:
            images: paths, Pillow images or [height, width, 3] uint8 RGB arrays, each a crop of one person.
            faces: the face of each, of the same kinds, None for a photo that shows none; without them the faces are
                looked for (`find_faces`) or the body stream alone is computed.

        Returns:
            [images, dimension] float32: face stream first, each part of unit length, zeros for a missing face.
            `embedder.similarity.between(query, gallery)` compares them as the evaluation does.

        Raises:
            InputError: a photo or face cannot be read, or there is not one face (or None) for each photo.
            RunError: the process was forked after JAX had started.
        """
        if isinstance(images, (str, os.PathLike, Image.Image)):
            raise InputError("images is a single photo; expected a list of photos.")
        photos = list(images)
        known = [None] * len(photos) if faces is None else list(faces)
        if len(known) != len(photos):
            raise InputError(f"{len(photos)} images and {len(known)} faces; expected a face or None for each image.")
        blocks = []
        done = 0
        for block in self.stream(zip(photos, known, strict=True), faces=faces is not None):
            for row, reason in block.failures.items():
                photo = photos[done + row]
                name = f" ({photo})" if isinstance(photo, (str, os.PathLike)) else ""
                raise InputError(f"image {done + row}{name} cannot be used: {reason}.")
            blocks.append(block.embeddings)
            done += len(block.embeddings)
        return np.concatenate(blocks) if blocks else np.zeros((0, self.dimension), np.float32)

    def stream(self, pairs: Iterable[Pair], *, faces: bool) -> Generator[Block]:
        """Embeds any number of photos in bounded memory: a few batches are decoded ahead, two are on the devices.

        Args:
            pairs: photos with their faces; taken from as the work goes on.
            faces: whether any photo can have a face. False computes the body stream alone, unless faces are looked for.

        Yields:
            For each full batch, and for the rest, what it gives.

        Raises:
            InputError: a photo is of no known kind, or the networks have a face stream alone and there are no faces.
            RunError: the process was forked after JAX had started.
        """
        refuse_after_fork("an Embedder cannot be used")
        faces = faces or self._find_faces is not None
        used = list(zip(self._networks, self._variables, strict=True))
        if not faces and all(spec.reads_face for spec in self._specs):
            raise InputError("the network has a face stream only: give the faces.")
        if not faces:
            used = [(net.without_faces(), values) for net, values in used if net.without_faces().streams]
        networks = tuple(net for net, _ in used)
        variables = [values for _, values in used]
        with _starting:
            embed = _compiled(networks, self.flip, self._mesh)
        running: deque[tuple[_Decoded, Any]] = deque()
        for decoded in self._ahead(pairs, networks):
            self._look_for_faces(decoded)
            batch = sharding.put_batch(self._mesh, decoded.batch)
            with _starting:
                running.append((decoded, embed(variables, batch)))
            if len(running) > 1:
                yield self._block(*running.popleft())
        for item in running:
            yield self._block(*item)

    def _ahead(self, pairs: Iterable[Pair], networks: Sequence[Network]) -> Iterator[_Decoded]:
        """Decodes batches in threads, in order, never more than are needed to keep them busy."""
        fields = tuple(dict.fromkeys(field for net in networks for field in net.images))
        chunks = iter(pairs)
        most = 2 if self._find_faces else self._threads + 1  # until it shows how large photos are
        waiting: deque[Future[_Decoded]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        try:
            while chunk := list(itertools.islice(chunks, self.batch)):
                waiting.append(pool.submit(self._decode, chunk, fields))
                while len(waiting) > most:
                    decoded = waiting.popleft().result()
                    held = sum(photo.nbytes for photo in decoded.photos.values())
                    most = min(self._threads + 1, max(1, _WAITING // max(held, 1)))
                    yield decoded
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _decode(self, chunk: Sequence[Pair], fields: Sequence[str]) -> _Decoded:
        sizes = {field: self.body_size if field == "body" else self.face_size for field in fields}
        batch: dict[str, np.ndarray] = {n: np.zeros((self.batch, *size, 3), np.uint8) for n, size in sizes.items()}
        batch |= {name: np.zeros(self.batch, np.bool_) for name in ("has_face", "valid")}
        decoded = _Decoded(batch, len(chunk), {}, {}, {}, {})
        for row, (photo, face) in enumerate(chunk):
            try:
                self._fill(decoded, row, photo, face if self.face_field in fields else None)
            except UnreadableError as error:
                decoded.failures[row] = str(error)
        return decoded

    def _fill(self, decoded: _Decoded, row: int, photo: Photo, face: Photo | None) -> None:
        batch, looked_for = decoded.batch, self._find_faces is not None and face is None
        rows = {}
        if "body" in batch or looked_for:
            image, report, content = open_photo(photo)
            if "body" in batch:
                rows["body"] = self._resize(image, self.body_size)
            if looked_for:
                decoded.photos[row] = np.asarray(image)
            if report.remarks:
                decoded.remarks[row] = report.remarks
            if content is not None:
                decoded.sha256[row] = hashlib.sha256(content).hexdigest()
        if face is not None and self.face_field:
            try:
                rows[self.face_field] = self._resize(read_photo(face), self.face_size)
            except UnreadableError as error:
                name = f" {face}" if isinstance(face, (str, os.PathLike)) else ""
                raise UnreadableError(f"its face{name}: {error}") from error
        for field, pixels in rows.items():
            batch[field][row] = pixels
        batch["has_face"][row] = face is not None
        batch["valid"][row] = True

    def _look_for_faces(self, decoded: _Decoded) -> None:
        if not decoded.photos or self._find_faces is None or self.face_field is None:
            return
        with self._finding:
            faces = self._find_faces(list(decoded.photos.values()))
            outside = getattr(self._find_faces, "outside_head", ())
        for position, row in enumerate(decoded.photos):
            if position in outside:
                decoded.remarks[row] = (*decoded.remarks.get(row, ()), "faces_outside_head")
        for row, face in zip(decoded.photos, faces, strict=True):
            if face is not None:
                decoded.batch[self.face_field][row] = self._resize(read_photo(face), self.face_size)
                decoded.batch["has_face"][row] = True
        decoded.photos.clear()  # the batch stays until the devices are done with it, these need not

    def _block(self, decoded: _Decoded, result: Any) -> Block:
        rows = np.asarray(result)[: decoded.used]
        if rows.shape[1] < self.dimension:  # only the body stream: zeros where the face would be
            rows = np.pad(rows, ((0, 0), (self.dimension - rows.shape[1], 0)))
        finite = np.isfinite(rows).all(axis=1)
        failures = {int(row): _NOT_FINITE for row in np.flatnonzero(~finite)} | decoded.failures
        has_face = decoded.batch["has_face"][: decoded.used]
        return Block(np.where(finite[:, None], rows, 0), has_face, failures, decoded.remarks, decoded.sha256)
