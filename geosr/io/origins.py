"""Origins: the files of this machine and the addresses behind a source, however it is spelt, and their stamps.

What a run reads must never be what it writes, and work on pixels that have changed meanwhile must not be continued.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import Request, urlopen

from geosr.io.gdal import files_of

if TYPE_CHECKING:
    from geosr.io.scene import Scene

TIMEOUT = 10
"""Seconds until a server has to say something."""

_WEB = re.compile(r"https?://\S+")
_CLOUD = re.compile(
    r"/vsi(?!zip|tar|gzip|7z|rar|cached|subfile|sparse|mem)\w+[/?]|\b(?!file|zip|tar|gzip|vrt)\w{2,}://"
)
_FROM = re.compile(r"\w+://|[:?&=,|!\"'{]|/vsi\w+/")  # behind these in a name that GDAL understands a path may begin
_TO = re.compile(r"[:?&,|!\"'}]")  # in front of these it may end
_NO_RASTERS = (".json", ".geojson", ".zip", ".safetensors", ".onnx", ".ckpt")
_ITEM_BYTES = 16 * 2**20


def local_files(source: str) -> set[str]:
    """The files and Zarr stores of this machine that a source is made of, links followed.

    Args:
        source: A path, or anything that GDAL opens: ``file://``, ``/vsisubfile/``, ``/vsizip/``, ``/vsicached?file=``,
            ``GTIFF_DIR:1:``, ``NETCDF:"a.nc":B02``, a virtual raster, whose sources count too; a STAC item, whose
            assets count; a file of a Sentinel-2 product, whose metadata count.
    """
    found: set[str] = set()
    waiting = [source]
    while waiting:
        for path in _spelt(waiting.pop()):
            if (real := os.path.realpath(path)) not in found:
                found |= {real, *_metadata(path)}
                waiting += [*_listed(path), *_assets(path)]
    return found


def _spelt(source: str) -> Iterator[str]:
    """The paths of files and stores that stand in a name."""
    for text in dict.fromkeys((source, unquote(source))):
        for start in (0, *(match.end() for match in _FROM.finditer(text))):
            rest = text[start:]
            for end in (len(rest), *(match.start() for match in _TO.finditer(rest))):
                if path := rest[:end]:
                    yield from _existing(path)


def _existing(path: str) -> Iterator[str]:
    """A path, where it is a file or leads into a Zarr store; the archive, where it leads into one."""
    if os.path.isfile(path) or _is_store(path):
        yield path
        return
    while "/" in path.strip("/"):
        path = path.rstrip("/").rpartition("/")[0]
        if os.path.exists(path):
            if os.path.isfile(path):
                yield path
            return


def _is_store(path: str) -> bool:
    """Whether a path is that of a Zarr store or of a group in one."""
    if not os.path.isdir(path):
        return False
    markers = (os.path.join(path, name) for name in ("zarr.json", ".zgroup", ".zarray"))
    return re.search(r"\.zarr(/|$)", path) is not None or any(map(os.path.isfile, markers))


def _listed(path: str) -> list[str]:
    """What GDAL reads with a raster: the sources of a virtual one, masks, overviews."""
    return files_of(path) if os.path.isfile(path) and not path.lower().endswith(_NO_RASTERS) else []


def _metadata(path: str) -> list[str]:
    """The metadata of the Sentinel-2 product that a file is part of."""
    parts = Path(path).parts
    if "GRANULE" not in parts:
        return []
    product = Path(*parts[: parts.index("GRANULE")])
    return [os.path.realpath(file) for file in (*product.glob("*.xml"), *product.glob("GRANULE/*/*.xml"))]


def _assets(path: str) -> list[str]:
    """The assets of a STAC item on this machine."""
    if not path.lower().endswith((".json", ".geojson")):
        return []
    try:
        if os.path.getsize(path) > _ITEM_BYTES:
            return []
        item = json.loads(Path(path).read_bytes())
        links = [asset["href"] for asset in item["assets"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    folder = os.path.dirname(os.path.abspath(path))
    return [os.path.join(folder, link.removeprefix("file://")) for link in links if isinstance(link, str)]


def files_of_scene(scene: Scene) -> list[str]:
    """What a scene reads: its rasters or groups, and the files of its masks."""
    masks = () if scene.mask is None else (file.path for file in scene.mask.files)
    return list(dict.fromkeys((*scene.paths, *masks)))


def stamps_of(sources: Iterable[str]) -> dict[str, str | None]:
    """The `stamp` of each source."""
    several = list(sources)
    if not any(map(_WEB.search, several)):  # servers are asked at the same time
        return {source: stamp(source) for source in several}
    with ThreadPoolExecutor(8, thread_name_prefix="stamp") as threads:
        return dict(zip(several, threads.map(stamp, several), strict=True))


def stamp(source: str) -> str | None:
    """Letters that change when the pixels of a source may have changed; None where nothing can be learnt of it.

    They stand for inode, size and times (last change of content and of state, nanoseconds) of each local file, and for
    ETag, time of the last change and length of what a web server has.
    """
    if address := _WEB.search(unquote(source)):
        facts: Any = _served(address[0], inside=re.match(r"/vsi(zip|tar|gzip)/", source) is not None)
    elif _CLOUD.search(source):
        facts = None
    else:
        facts = _stored(source)
    return facts and hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _stored(source: str) -> list[Any] | None:
    """What the file system says of the files behind a source, and servers of those that it refers to."""
    found = sorted(local_files(source))
    virtual = [path for path in found if _is_virtual(path)]
    # Everything in an .aux.xml file that matters to a scene is known when that is opened; what is not are statistics,
    # which a viewer adds at any time. Overviews matter where a virtual raster is coarser than its sources.
    passing = (".aux.xml",) if virtual else (".aux.xml", ".ovr")
    facts: list[Any] = [
        [path, _tree(path) if os.path.isdir(path) else _facts(os.stat(path))]
        for path in found
        if not path.lower().endswith(passing)
    ]
    for elsewhere in (name for path in virtual for name in files_of(path) if _WEB.search(name) or _CLOUD.search(name)):
        if (there := stamp(elsewhere)) is None:
            return None
        facts.append([elsewhere, there])
    return facts or None


def _is_virtual(path: str) -> bool:
    """Whether a file is a virtual raster of GDAL's."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return b"<VRTDataset" in file.read(1024)


def _facts(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _tree(folder: str) -> str:
    """Letters that change with any file of a folder."""
    digest = hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            digest.update(json.dumps([os.path.relpath(path, folder), *_facts(os.stat(path))]).encode())
    return digest.hexdigest()


def _served(address: str, *, inside: bool) -> list[str | None] | None:
    """What a web server says of a file; None where it tells no version of it."""
    if inside and (archive := re.match(r"(.+?\.(?:zip|tar|tgz|gz))(?:/|$)", address, re.IGNORECASE)):
        address = archive[1]
    path = address.partition("?")[0].lower()
    if path.endswith(".vrt") or ".zarr" in path:  # what it refers to, or holds, may change without it
        return None
    for method, asked in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
        request = Request(address, headers={"User-Agent": "geosr", **asked}, method=method)
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:
                told = answer.headers
        except HTTPError:  # this server, or this signature, is for reading only
            continue
        except (OSError, ValueError, http.client.HTTPException):
            return None
        if told["ETag"] or told["Last-Modified"]:
            length = (told["Content-Range"] or "").rpartition("/")[2] or told["Content-Length"]
            return [told["ETag"], told["Last-Modified"], length]
    return None
