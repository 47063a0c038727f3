"""Embeds images with an exported network: pip install jax flatbuffers, nothing of deskpro_jax.

    python serve_stablehlo.py celeb.stablehlo embeddings.npy body.npy face.npy has_face.npy

The arrays are the inputs that celeb.stablehlo.json lists, in that order, with any number of images.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

program, target, *arrays = map(Path, sys.argv[1:])
content, about = program.read_bytes(), json.loads(Path(f"{program}.json").read_text())
if hashlib.sha256(content).hexdigest() != about["sha256"]:
    sys.exit(f"{program} is damaged: fetch it again")
embed = jax.jit(export.deserialize(bytearray(content)).call)  # compiles once for each number of images
np.save(target, embed(*map(np.load, arrays)))
