"""Name tables of DeSKPro's released checkpoints: body stream, face student, face teacher."""

from __future__ import annotations

from collections.abc import Iterable

from deskpro_jax.weights.lmbn import DESKPRO, light_mbn
from deskpro_jax.weights.table import Entry

STREAMS = {"body": "nocloth_net.", "student": "lr_face_net.", "teacher": "face_net."}


def attention(form: str) -> Iterable[Entry]:
    """Yields the entries of the CSA module; `form` as in `model.attention`."""
    if form == "released":
        for layer in ("conv1", "conv2"):
            yield Entry(f"spatial_attn.{layer}.weight", "params", ("attention", layer, "kernel"), (), "pointwise")
    elif form == "paper":
        yield Entry("spatial_attn.conv.weight", "params", ("attention", "conv", "kernel"), (), "pointwise")
        yield Entry("spatial_attn.conv.bias", "params", ("attention", "conv", "bias"))


def stream(which: str, *, streams: str, attention_form: str = "none") -> list[Entry]:
    """Returns the table of one stream inside a `DeSKPro` module: "body", "student" or "teacher"."""
    module = ("body_stream",) if which == "body" else ("face_stream",)
    entries = list(light_mbn(DESKPRO, streams=streams))
    if which == "body":
        entries += attention(attention_form)
    return [entry.under(STREAMS[which], module) for entry in entries]


def two_streams(*, streams: str, attention_form: str) -> list[Entry]:
    """Returns the table of the inference model: face student and body stream."""
    return stream("student", streams=streams) + stream("body", streams=streams, attention_form=attention_form)
