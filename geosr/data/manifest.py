"""What a manifest says of each scene: what it is made of, so that the same is never made twice."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geosr.data.plan import Options, Part
from geosr.data.store import VERSION, digest, open_store
from geosr.errors import OutputError
from geosr.grid import Window, size
from geosr.radiometry import Radiometry


def describe(parts: Sequence[Part], options: Options, pool: Executor) -> list[dict[str, Any]]:
    """What the manifest says of each scene before it is made: what it is made of."""
    read = {path for part in parts for path in (*part.source.files.hr, *part.source.files.lr)}
    read |= {mask for part in parts if (mask := options.mask_file(part.source))}
    paths = sorted({local for path in read if (local := _local(path))})
    sums: dict[str | None, str] = dict(zip(paths, pool.map(lambda path: digest(Path(path)), paths), strict=True))

    def told(files: Iterable[str]) -> list[dict[str, str | None]]:
        # What follows a question mark in an address is a signature, which ends soon and is nobody else's business.
        return [{"path": re.sub(r"(?<=://)(.*?)\?.*", r"\1", path), "sha256": sums.get(_local(path))} for path in files]

    entries = []
    for part in parts:
        source, images = part.source, part.images
        files = source.files
        mask = options.mask_file(source)
        entries.append(
            {
                "name": part.name,
                "slug": part.slug,
                "scene": files.name,
                "resolution": str(part.factor),
                "source": source.origin,
                "licence": source.licence,
                "start": files.start.isoformat() if files.start else None,
                "end": files.end.isoformat() if files.end else None,
                "files": told(files.hr),
                "lr_files": told(files.lr),
                "mask": told([mask] if mask else []),
                "matched": source.matched,
                "window": {role: _numbers(image.window) for role, image in images.items()},
                "exclude": [_numbers(window) for window in files.exclude],
                "crs": None if images["hr"].geobox.crs is None else str(images["hr"].geobox.crs),
                "transform": list(images["hr"].geobox.affine[:6]),
                "shape": {role: list(image.geobox.shape) for role, image in images.items()},
                "encoding": {role: _told(image.radiometry) for role, image in images.items()},
            }
        )
    return entries


def _local(path: str) -> str | None:
    """The file or folder on this machine that a path reads; None for what lies elsewhere."""
    path = re.sub(r"^/vsizip/(.+?\.zip)(/.*)?$", r"\1", path, flags=re.IGNORECASE)
    return path if os.path.exists(path) else None


def _numbers(window: Window) -> list[int]:
    """A window as [row, column, height, width]."""
    return [window[0].start, window[1].start, *size(window)]


def _told(radiometry: Radiometry) -> dict[str, Any]:
    """An encoding as JSON holds it, which has no NaN."""
    return {key: str(value) if value != value else value for key, value in asdict(radiometry).items()}


def made_from(entry: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the pixels of a scene depend on; files count by their content, remote ones by their address."""
    contents = {key: [one["sha256"] or one["path"] for one in entry[key]] for key in ("files", "lr_files")}
    facts = ("window", "exclude", "resolution", "crs", "transform", "shape", "encoding")
    return {"store": VERSION, "bands": options["bands"], **contents, **{fact: entry[fact] for fact in facts}}


def cut_from(entry: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the patches of a scene depend on besides its pixels."""
    masks = [one["sha256"] or one["path"] for one in entry["mask"]]
    return {"patch": options["patch"], "stride": options["stride"], "mask": masks}


def require_same(target: Path, options: Options, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise unless the store is what this call would make."""
    manifest = open_store(target).manifest
    held, wanted = manifest["options"], options.to_dict()
    different = [
        f"{key} {json.dumps(held.get(key))} and this call has {json.dumps(wanted[key])}"
        for key in wanted
        if held.get(key) != wanted[key]
    ]
    if not different:
        before = {entry["name"]: entry for entry in manifest["scenes"]}
        now = {entry["name"]: entry for entry in entries}
        different += [f"scene {name}, which this call has not" for name in before if name not in now]
        different += [f"no scene {name}, which this call has" for name in now if name not in before]
        for name in before.keys() & now.keys():
            for make in (made_from, cut_from):
                old, new = make(before[name], held), make(now[name], wanted)
                different += [
                    f"{name} with {key} {json.dumps(old[key])} and this call has {json.dumps(new[key])}"
                    for key in old
                    if old[key] != new[key]
                ]
            different += [
                f"{name} with {key} {before[name][key]!r} and this call has {now[name][key]!r}"
                for key in ("source", "licence", "start", "end")
                if before[name][key] != now[name][key]
            ]
    if different:
        more = f" ({len(different) - 1} more differences)" if len(different) > 1 else ""
        raise OutputError(
            f"{target} was made with {different[0]}{more}; give --overwrite to make it again, or choose another --out"
        )
