"""Writes PyTorch files without PyTorch: the zip format of torch.save, the one before it, and odd ones."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

STORAGE_NAMES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(jnp.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
}
ORDERED = b"ccollections\nOrderedDict\n"
LEGACY_HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
# OrderedDict(w=arange(6.).reshape(2, 3), t=w.t(), h=[.5, -2].half(), b=[1.5, -3].bfloat16(), n=tensor(7)) as PyTorch
# 2.13 saves it, with `_metadata`: zip format, and _use_new_zipfile_serialization=False.
WRITTEN_BY_TORCH = {
    "zip": (
        "c-qC4OK;Rx6vyw_6VKp49=sAl8z>Z*K$!S3&jL+kA*+%RgejFq*^HbSld*8dIpdq~kdPulBC(@ipkm7>=(4QYQB|zEDhpu67eH0-y&jBxLlTlK"
        "YRw(b<NW^Te|66}p0&g@LfI_Za1Eh@$nG}V?us+jvay|Cy5pI~0Gdl&t3tEsd!Ez8uHOmd8{L-Eby`>5CYAwB)F73sr-;~H5SrL0YWc=8cD+Du"
        "be;KS*K0Mf(+T`;V?~oe%;oAC5*(07d%=Nph{&er+xX}3M;ZE<paN1|B=_dhGGr_XL-wYHEWr}jVV@;hsdbQ_w5fr94Et+vfI%1r+9XLk-3~=m"
        "7;H0mh{B>Jti!OCq8bN7_z;G}H8{e8+i*05d#--6z1xwg5f-AsDA5xz9AjqIV9ZLb!SPV*8w}spV4MZc!-<5J!M3QDBE6F=Oo#76y;D8C(^T*K"
        "Q11+evo$!!0y~gP=w0(W3z60Y3n{>PqLspMfoM%kgc_3=F4iEw{1B$<`$$k@(ZM!7Y*5($YMoXBXb(YWC$r*o19Hw#uu?$~%;#sVOg8_|`pbVw"
        "2D)Z9t)>xlC90<UZNIx{<3>--G^$)t?ch?Wh2KB?{fO?7uFWlsq4H-7y&7xSp1aUlbUN5H^xe296{vyfyYOBhDTFNz45R7D!2Ese__SF}<I?VT"
        "KR4&O7<&%&uy*CmF^Oc6w)8N7eoS=rlwuk`?7={&x;jnXX2^@IRkEJVP)8$A-~KvE{utfH(PYw*Y8pB8KjznVl)r*r&|Ht7*PoIED7{UtnPe{A"
        "G%oMu_~%|s&#?T$_~}Et$Y0oN{!CAqdRTh>)~89cTY4Bomm&|*1Ss#;gf7#}uYOzjW&8dcN80BBz_uSaU6)LN2R40rHQbhI<acO9QHn*is;HHs"
        "t|@x4s+22brC6#KiUqA)R!fzNTGF*@g}SVDKDs&LBgb5(sM*M8e2NZjaLzx6c{)A-M-t?90c|#Sd6D=K8%v11ii>QRoV-qa5Dh1EY9iV=0C_y#"
        "wF3$KwTQUc_4RB!&9N%a#ydF4zT;VqXXD+MWN-Cxtj@FXu1T_g@oa%-<8?onVCxd%yNrk9<v5;z|BS(3Zj@O|k|sa3m3T2C`?>ocLU_NI`7|aZ"
        "_Ngp~-@_+%pA<6vEIy3=5B`l*+W"
    ),
    "legacy": (
        "c-n=MNpI6Y6vw?Kp@x>SQ`WLOEFp26?bHaN3Tar)WiH5a?4dR?cAh;h0x421jeyU<fg>LyUx$x?#DV9fQ6oiS<e9PG@_T>Jys7kE4gUVv{j>ey"
        "*XymuRC@7S#&rUMMmGgP7{?KhoG7sNS)BM$2qFg1b@T*2=K-@===ydD(pRdYk$)aDEAhXu1mp=Q8m*u)@uHYRg-BG!FF)i^B??tCMilNrjVNh~"
        "H61JyFo$E6M12*zEN1Rg-{C3<brVF5ikR^UB!@?_<29_5`$3{wF&m|R;98u8NfcZAx(c$U(OOm*Bker~N|B=O29eF*7Dg2+bOU1sMyK8Hv~=BQ"
        "H+wo%bB)e8MOoFC9FDyq0+EP3gEb-(aR%x)FOzee!wD1Cb4?sJJS^!c-VvmscLwe5V4%ZEuRv{PD49qzI7P&ac)CEH;c(W3b2-X`^98C@{LBvC"
        "F9cs$qW5~uc1MScNSBbll?y$9OGG??%LVxghpQ%B%gH0SzC?bKA4aRYpl>hH`vbk%>cWkZezT<C%ILQX`W+5;O}LlSL(rD!&+%dx<odGie$UVi"
        "xQ}EJ$q$fRuNTCJ93Gj_NGI@^u3?Jxk#XC#xed+S-=b&~K%YQ6zu&{2G>Dia$q0MsUDmfNPDxxPL0a|4@~SITR<%lnH6)=NePJ$^ueEYN^v!pM"
        "^Qv%kOm}b@;)8RF^XKq?{(rhZ;D7"
    ),
}


class Raw(bytes):
    """Pickle opcodes that push one value."""


def written_by_torch(form: str) -> bytes:
    """Returns a file that PyTorch itself wrote."""
    return zlib.decompress(base64.b85decode("".join(WRITTEN_BY_TORCH[form])))


class Pickled:
    """The pickle of a tree as torch.save makes it, and the storages it refers to."""

    def __init__(self, tree: Any, legacy: bool = False):
        self._view = (None,) if legacy else ()  # the old format has one field more, of views
        self.storages: dict[str, np.ndarray] = {}
        self._keys: dict[int, str] = {}
        self.data = b"\x80\x02" + self.value(tree) + b"."

    def value(self, item: Any) -> bytes:
        """Returns the opcodes that push `item`."""
        match item:
            case Raw():
                return bytes(item)
            case None:
                return b"N"
            case bool():
                return b"\x88" if item else b"\x89"
            case int():
                return b"J" + struct.pack("<i", item) if abs(item) < 2**31 else b"\x8a\x08" + struct.pack("<q", item)
            case float():
                return b"G" + struct.pack(">d", item)
            case str():
                return b"X" + struct.pack("<I", len(item.encode())) + item.encode()
            case tuple():
                return b"(" + b"".join(map(self.value, item)) + b"t"
            case list():
                return b"](" + b"".join(map(self.value, item)) + b"e"
            case np.ndarray():
                return self.tensor(item)
            case Mapping():
                start = ORDERED + b")R" if isinstance(item, OrderedDict) else b"}"
                return start + b"(" + b"".join(self.value(k) + self.value(v) for k, v in item.items()) + b"u"
        raise TypeError(type(item))

    def tensor(self, array: np.ndarray) -> bytes:
        """Returns the opcodes of a tensor; the same array twice shares its storage, as a registered alias does."""
        key = self._keys.setdefault(id(array), str(len(self._keys)))
        self.storages[key] = array
        strides: list[int] = []
        step = 1
        for size in array.shape[::-1]:
            strides.insert(0, step)
            step *= size
        name = STORAGE_NAMES[array.dtype]
        return tensor_opcodes(key, name, array.size, 0, array.shape, tuple(strides), self._view)


def tensor_opcodes(
    key: str,
    storage: str,
    count: int,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    view: tuple[Any, ...] = (),
) -> Raw:
    """Returns the opcodes of a tensor with whatever sizes are asked for."""
    encode = Pickled(None).value
    where = encode(("storage", Raw(b"ctorch\n" + storage.encode() + b"\n"), key, "cpu", count, *view)) + b"Q"
    parts = (Raw(where), offset, tuple(shape), strides, False, Raw(ORDERED + b")R"))
    return Raw(b"ctorch._utils\n_rebuild_tensor_v2\n" + encode(parts) + b"R")


def zip_bytes(pickle: bytes, storages: Mapping[str, bytes], extra: Mapping[str, bytes] | None = None) -> bytes:
    """Returns a file in the zip format."""
    entries = {"data.pkl": pickle, ".format_version": b"1", "byteorder": b"little"}
    entries |= {f"data/{key}": value for key, value in storages.items()} | {"version": b"3\n"}
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, value in ({f"archive/{n}": v for n, v in entries.items()} | dict(extra or {})).items():
                archive.writestr(name, value)
        return buffer.getvalue()


def torch_zip(tree: Any) -> bytes:
    """Returns what torch.save writes since version 1.6."""
    pickled = Pickled(tree)
    return zip_bytes(pickled.data, {key: array.tobytes() for key, array in pickled.storages.items()})


def torch_legacy(tree: Any) -> bytes:
    """Returns what torch.save wrote before version 1.6."""
    pickled = Pickled(tree, legacy=True)
    sizes = {"short": 2, "int": 4, "long": 4}
    system = Pickled({"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}).data
    keys = sorted(pickled.storages)
    raw = [struct.pack("<q", pickled.storages[key].size) + pickled.storages[key].tobytes() for key in keys]
    return LEGACY_HEAD + system + pickled.data + Pickled(list(keys)).data + b"".join(raw)


def save(path: Path, data: bytes) -> Path:
    """Writes a file and returns its path."""
    path.write_bytes(data)
    return path
