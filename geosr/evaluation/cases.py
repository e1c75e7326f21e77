"""Cases: what is evaluated, as files, and how they become pairs of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from geosr.degrade import PSF
from geosr.errors import BandError, GridError, UsageError
from geosr.evaluation.pairs import DegradedPair, FilePair, Pair, lr_shape
from geosr.grid import Window, moved, pair_grids, relative, scaled
from geosr.io.inputs import open_input
from geosr.io.scene import Scene

Paths = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """Files of one scene: HR alone, of which LR is made; LR, with HR or without; a finished SR image beside either.

    Raises:
        UsageError: It has no image, or SR without LR.
    """

    name: str
    """What tables call it."""
    hr: Paths = ()
    """What `geosr.io.inputs.open_input` takes."""
    lr: Paths = ()
    sr: Paths = ()
    only: tuple[Window, ...] | None = None
    """HR windows whose pixels count, such as the test part of a split; None: all."""

    def __post_init__(self) -> None:
        if not (self.hr or self.lr) or (self.sr and not self.lr):
            raise UsageError(
                f"scene {self.name} has {'an SR image alone' if self.sr else 'no image'}; give HR, LR, or both, or a "
                "finished SR image and its LR: --sr sr.tif --lr lr.tif"
            )


@dataclass(frozen=True)
class Reading:
    """How files are read: what the user says of them, as for `geosr.predict`."""

    bands: tuple[str, ...] | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    sensor: str | None = None
    baseline: str | None = None
    mask: tuple[str, ...] = ()
    mask_dilate: float = 0.0

    def open(self, paths: Paths, wanted: Sequence[str] | None, *, masked: bool) -> Scene:
        """The scene of some files, of which bands are wanted; a finished image has no masks of its own."""
        return open_input(
            paths, wanted=wanted, bands=self.bands, scale=self.scale, offset=self.offset, nodata=self.nodata,
            sensor=self.sensor, baseline=self.baseline, mask=self.mask if masked else (),
            mask_dilate=self.mask_dilate,
        )  # fmt: skip


class OpenCases:
    """Opens the files of a case as a pair, and closes them all at the end."""

    def __init__(self, reading: Reading) -> None:
        self._reading, self._stack = reading, ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pair(self, case: Case, *, bands: Sequence[str] | None, scale: int | None, mtf: float) -> Pair:
        """The images of a case.

        Args:
            case: Its files.
            bands: Bands that are compared; None: those that all its images have.
            scale: HR pixels per LR pixel that the models have; None: whatever the files have.
            mtf: Of the point-spread function that makes LR where there is none.

        Raises:
            BandError: A file lacks a band.
            GridError: The grids do not fit, or the scale is another.
        """
        opened = {
            role: self._stack.enter_context(self._reading.open(paths, bands, masked=role != "sr"))
            for role, paths in (("lr", case.lr), ("hr", case.hr), ("sr", case.sr))
            if paths
        }
        if bands is None:
            bands = _common_bands(opened)
        for scene in opened.values():
            _require_bands(scene, bands)
            scene.band_radiometry(bands)
        if "lr" not in opened:
            assert scale is not None
            pair = DegradedPair(case.name, opened["hr"], tuple(bands), PSF(scale, mtf), case.only)
            if min(lr_shape(pair)) < 1:
                height, width = opened["hr"].geobox.shape
                raise GridError(f"{case.name} has {height} x {width} pixels, less than one LR pixel of x{scale}")
            return pair
        return _file_pair(case.name, tuple(bands), scale, only=case.only, **opened)


def _file_pair(
    name: str,
    bands: tuple[str, ...],
    scale: int | None,
    *,
    lr: Scene,
    hr: Scene | None = None,
    sr: Scene | None = None,
    only: tuple[Window, ...] | None = None,
) -> FilePair:
    """The part that all images cover, as windows of each."""
    fine = {role: scene for role, scene in (("SR", sr), ("HR", hr)) if scene is not None}
    found = {}
    for role, scene in fine.items():
        pair = pair_grids(scene.geobox, lr.geobox, hr_name=f"{role} {scene.name}", lr_name=f"LR {lr.name}")
        if scale not in (None, pair.scale):
            raise GridError(
                f"{role} {scene.name} has x{pair.scale} the pixels of LR {lr.name}, and x{scale} is wanted; give "
                f"images or a model of one scale"
            )
        scale, found[role] = pair.scale, pair
    assert scale is not None
    starts = [max([0, *(pair.lr[axis].start for pair in found.values())]) for axis in (0, 1)]
    stops = [min([lr.geobox.shape[axis], *(pair.lr[axis].stop for pair in found.values())]) for axis in (0, 1)]
    if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
        raise GridError(f"LR, SR and HR of {name} share no LR pixel; give images of one place")
    common = slice(starts[0], stops[0]), slice(starts[1], stops[1])
    windows = {
        role: moved(scaled(relative(common, pair.lr), scale), pair.hr[0].start, pair.hr[1].start)
        for role, pair in found.items()
    }
    nothing = (slice(0, 0), slice(0, 0))
    return FilePair(
        name, bands, scale, lr, common, hr, windows.get("HR", nothing), sr, windows.get("SR", nothing), only
    )


def _common_bands(opened: dict[str, Scene]) -> tuple[str, ...]:
    """Bands that all images have, in the order of the first."""
    first, *others = opened.values()
    common = tuple(band for band in first.bands if all(band in other.bands for other in others))
    if not common:
        told = "; ".join(f"{role.upper()} {scene.name}: {' '.join(scene.bands)}" for role, scene in opened.items())
        raise BandError(f"the images share no band ({told}); name the bands of a file with --bands")
    return common


def _require_bands(scene: Scene, bands: Sequence[str]) -> None:
    if missing := [band for band in bands if band not in scene.bands]:
        remedy = "" if scene.named else "; nothing names its bands, so give --bands B02,B03,B04,B08"
        raise BandError(
            f"{scene.name} lacks {' '.join(missing)} of the bands {' '.join(bands)}; it has {' '.join(scene.bands)}"
            + remedy
        )


def name_of(path: str | os.PathLike[str]) -> str:
    """The name of a file or folder, without its ending.

    >>> name_of("data/danube.tif"), name_of("S2A.SAFE/")
    ('danube', 'S2A')
    """
    base = os.path.basename(os.fspath(path).rstrip("/"))
    return os.path.splitext(base)[0] or base
