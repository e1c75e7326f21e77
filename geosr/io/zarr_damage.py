"""Damage of Zarr stores: which part of one cannot be read and why, and sizes that no scene has."""

from __future__ import annotations

import json
import math
import os

import zarr

from geosr.errors import InputError
from geosr.io import cf

METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
"""Files that describe groups and arrays."""
_LARGEST_JSON, _LOOKED_AT = 2**26, 1000  # bytes of a file, and groups and arrays, that are searched for damage
_LONGEST, _MOST_PIXELS, _MOST_BANDS = 2**26, 2**42, 2**12  # 2**42 pixels are the land of the Earth at 6 m
_LARGEST_CHUNK = 2**34  # bytes


def damaged(root: str, error: BaseException) -> InputError:
    """The error for a store that cannot be read: it names the file of metadata that is damaged, where one is."""
    where = "" if "://" in root else _damaged_member(root)
    return InputError(f"{root} is damaged or no raster in Zarr: {where or reason(error)}")


def _damaged_member(root: str) -> str:
    """The first member of a store that zarr cannot read, and what is wrong with it; links are not followed."""
    folders = []
    for folder, _, names in os.walk(root):
        described = [name for name in sorted(names) if name in METADATA]
        for name in described:
            if what := _damage(os.path.join(folder, name)):
                return f"{os.path.join(folder, name)} ({what})"
        folders += [folder] if described else []
        if len(folders) == _LOOKED_AT:
            break
    for folder in folders:
        try:
            zarr.open(folder, mode="r", use_consolidated=False)
        except Exception as error:  # whatever zarr makes of damage
            return f"{folder} ({reason(error)})"
    return ""


def _damage(path: str) -> str:
    """Why a file holds no JSON object; empty where it does."""
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST_JSON)
        return "" if isinstance(json.loads(text), dict) else "no JSON object"
    except (OSError, ValueError, RecursionError) as error:
        return reason(error) if isinstance(error, OSError) or text.strip() else "empty"


def reason(error: BaseException) -> str:
    """The first line of what an error says, and its kind where that is nothing."""
    said = next(iter(str(error).splitlines()), "")[:200]
    return said if len(said) > 20 else f"{type(error).__name__}: {said}"


def require_sizes(array: zarr.Array) -> None:
    """Fail where an array is larger than any scene, before anything is planned or read.

    Raises:
        InputError: It is too large, or empty.
    """
    *bands, height, width = array.shape
    told = " x ".join(map(str, array.shape))
    if min(array.shape) < 1:
        raise InputError(f"{cf.named(array)} holds no pixels ({told})")
    if max(height, width) > _LONGEST or height * width > _MOST_PIXELS or max(bands, default=1) > _MOST_BANDS:
        raise InputError(
            f"{cf.named(array)} is {told}, which is more than the land of the Earth at 6 m: its metadata are damaged, "
            "or it has to be cut into scenes"
        )
    chunk = math.prod(array.chunks) * array.dtype.itemsize
    if chunk > _LARGEST_CHUNK:
        raise InputError(f"{cf.named(array)} has chunks of {chunk / 2**30:.0f} GiB; a chunk has to fit into memory")
