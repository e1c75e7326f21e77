"""`evaluate`: models, baselines and finished images on scenes, measured part by part."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geosr.degrade import PSF
from geosr.errors import InputError, UsageError, extra
from geosr.evaluation.cases import Case, OpenCases, Reading, name_of
from geosr.evaluation.classes import ClassMap
from geosr.evaluation.entrants import BORDER, MTF, Entrants, entrants_of, facts_of
from geosr.evaluation.figures import ALL, Distance, Figures, pooled, with_gain
from geosr.evaluation.methods import BICUBIC, ArrayMethod, Method, baselines
from geosr.evaluation.pairs import ArrayPair, Pair, inner_window, pieces, pixel_m
from geosr.evaluation.parts import PIECE, Part, Samples, join_patches, measure_part
from geosr.evaluation.perceptual import Perceptual, find_perceptual
from geosr.evaluation.pictures import draw
from geosr.evaluation.report import prepare_folder, write_report
from geosr.evaluation.results import Evaluation, SceneResult, Setting
from geosr.grid import BLOCK, size
from geosr.inference.superresolver import SuperResolver

Progress = Callable[[int, int, int], None]
"""Called with LR pixels done now, done in all and to be done."""


def evaluate(
    cases: Sequence[Case | str | os.PathLike[str]],
    *,
    models: Sequence[str | os.PathLike[str] | SuperResolver] = (),
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    sensor: str | None = None,
    baseline: str | None = None,
    mask: Sequence[str] = (),
    mask_dilate: float = 0.0,
    mtf: float | None = None,
    border: int | Literal["halo"] = BORDER,
    classes: str | os.PathLike[str] | None = None,
    class_names: Mapping[int, str] | None = None,
    samples: int | None = None,
    tta: bool = False,
    tile: int = BLOCK,
    lpips: str | os.PathLike[str] | None = None,
    dists: str | os.PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    trust: str | Sequence[str] = (),
) -> Evaluation:
    """Figures of models on scenes, beside bicubic interpolation and back-projection, or of finished SR images.

    A scene is measured in parts, so memory does not grow with it.

    Args:
        cases: Scenes; a path is one with HR alone.
        models: Names of models, as `geosr.load_model` takes them, or loaded ones. None are needed for finished images.
        bands: Names of the files' bands, in file order, where they do not name them; likewise the next five.
        scale: Reflectance per digital number.
        offset: Reflectance at digital number 0.
        nodata: The digital number of an invalid pixel.
        sensor: A sensor whose product specification says how reflectance is encoded.
        baseline: Processing baseline, for Sentinel-2.
        mask: Kinds of masks that make pixels invalid: ``clouds``, ``defects``, ``snow``.
        mask_dilate: Metres around masked pixels that are invalid too.
        mtf: Contrast at LR's Nyquist frequency of the sensor that LR is made by; None: a model's own, else 0.3.
        border: HR pixels left out at each edge, or ``halo``: as far as the models may look beyond it, which of large
            networks is much farther than what lies there changes anything.
        classes: Integer raster of land cover.
        class_names: Names of its numbers.
        samples: Members of the ensemble of models that take noise; their spread is compared with the error.
        tta: Measure the mean of the eight orientations of the input, of models that take no noise.
        tile: SR pixels from one tile border to the next in finished images, whose seams are looked for.
        lpips: File with torchvision's AlexNet, where it is not in torch's cache; likewise ``dists``.
        dists: File with torchvision's VGG16.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        out: Folder for ``metrics.json``, ``metrics.csv`` and ``report.html``; None writes nothing.
        overwrite: Replace those of an earlier evaluation.
        progress: Called after every part of a scene.
        trust: Modules whose code may run for models of a class of one's own, as for `geosr.load_model`.

    Raises:
        GeosrError: See its children; the message says what to do. Nothing is measured before all files fit.
    """
    named = _named([one if isinstance(one, Case) else Case(name_of(one), hr=(os.fspath(one),)) for one in cases])
    entrants = entrants_of(
        named, models, mtf=mtf, samples=samples, tta=tta, tile=tile, device=device, precision=precision, trust=trust
    )
    perceptual = find_perceptual({"lpips": lpips, "dists": dists})
    reading = Reading(
        None if bands is None else tuple(bands), scale, offset, nodata, sensor, baseline, tuple(mask), mask_dilate
    )
    with extra("train", "evaluating"):
        import matplotlib  # noqa: F401
        import torchmetrics  # noqa: F401
    cover = None if classes is None else ClassMap(os.fspath(classes), class_names or {})
    plan = [(case, group) for group in entrants for case in named]
    total = sum(_check(case, group, reading, border) for case, group in plan)
    target = None if out is None else prepare_folder(out, overwrite=overwrite)
    counted = _Counter(progress, total)
    results, borders = [], {}
    for case, group in plan:
        with OpenCases(reading) as files:
            pair = files.pair(case, bands=group.bands, scale=group.scale, mtf=group.mtf)
            cut = group.border(pair, border)
            result = _measured(case, pair, group, cut, cover, perceptual, counted, pictures=target is not None)
        results.append(result)
        borders[str(result.setting)] = cut
    found = Evaluation(tuple(results), borders, facts_of(entrants), perceptual.notes)
    if target is not None:
        found.write_metrics(target)
        write_report(found, target)
    return found


def _named(cases: Sequence[Case]) -> list[Case]:
    """The cases, each with a name of its own.

    Raises:
        UsageError: There is none.
    """
    if not cases:
        raise UsageError("no scene is given; name HR scenes, --pairs LR HR, or --sr sr.tif --lr lr.tif")
    seen: dict[str, int] = {}
    found = []
    for case in cases:
        seen[case.name] = seen.get(case.name, 0) + 1
        count = seen[case.name]
        found.append(case if count == 1 else replace(case, name=f"{case.name}-{count}"))
    return found


class _Counter:
    """Tells progress in LR pixels."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        if progress:
            progress(0, 0, total)

    def add(self, pixels: int) -> None:
        """So many more are done."""
        self._done += pixels
        if self._progress:
            self._progress(pixels, self._done, self._total)


def _check(case: Case, group: Entrants, reading: Reading, border: int | Literal["halo"]) -> int:
    """Whether everything fits, before any work; LR pixels to measure."""
    with OpenCases(reading) as files:
        pair = files.pair(case, bands=group.bands, scale=group.scale, mtf=group.mtf)
        return prod(size(inner_window(pair, group.border(pair, border))))


def _measured(
    case: Case,
    pair: Pair,
    group: Entrants,
    border: int,
    classes: ClassMap | None,
    perceptual: Perceptual,
    counted: _Counter,
    *,
    pictures: bool,
) -> SceneResult:
    """Everything about one scene."""
    psf, methods, window = PSF(pair.scale, group.mtf), group.methods(pair), inner_window(pair, border)
    parts, distances = [], perceptual.distances(pair.bands)
    for piece in pieces(window, side=PIECE // pair.scale):
        parts.append(measure_part(pair, piece, methods, psf=psf, classes=classes, distances=distances))
        counted.add(prod(size(piece)))
    figures = _pooled(parts)
    if not figures[BICUBIC][ALL]["pixels"]:
        raise InputError(
            f"{case.name} has no pixel that is valid in all its images, {border} HR pixels at each edge left out; "
            "check its nodata, its masks and --border"
        )
    patches = join_patches([part.patches for part in parts])
    return SceneResult(
        case.name,
        Setting(pair.scale, pair.bands, pair.units, group.mtf, "given" if case.lr else "degraded"),
        pixel_m(pair),
        figures,
        _mean_spectra(parts),
        patches,
        _joined_samples(parts),
        draw(pair, methods, patches, window, psf=psf) if pictures else None,
    )


def _pooled(parts: Sequence[Part]) -> dict[str, dict[str, Figures]]:
    """Figures of a scene by method and class."""
    found: dict[str, dict[str, Figures]] = {}
    for method in parts[0].figures:
        classes = dict.fromkeys(klass for part in parts for klass in part.figures[method])
        found[method] = {
            klass: pooled([part.figures[method][klass] for part in parts if klass in part.figures[method]])
            for klass in classes
        }
    return {
        method: {klass: with_gain(figures, found[BICUBIC][klass]) for klass, figures in classes.items()}
        for method, classes in found.items()
    }


def _mean_spectra(parts: Sequence[Part]) -> dict[str, NDArray[np.float64]]:
    """Spectra of a scene: means over the parts that have one, in dB."""
    found = {}
    for name in parts[0].spectra:
        known = [part.spectra[name] for part in parts if not np.isnan(part.spectra[name]).any()]
        found[name] = np.mean(known, axis=0) if known else parts[0].spectra[name]
    return found


def _joined_samples(parts: Sequence[Part]) -> dict[str, Samples]:
    return {
        name: (
            np.concatenate([part.samples[name][0] for part in parts]),
            np.concatenate([part.samples[name][1] for part in parts]),
        )
        for name in parts[0].samples
    }


def evaluate_arrays(
    lr: NDArray[np.float32],
    hr: NDArray[np.float32] | None,
    valid: NDArray[np.bool_] | None,
    sr: Mapping[str, NDArray[np.float32]],
    *,
    bands: Sequence[str],
    scale: int,
    mtf: float = MTF,
    border: int = BORDER,
    distances: Mapping[str, Distance] | None = None,
) -> dict[str, Figures]:
    """Figures of SR images that anyone made, by method and name, those of the baselines first.

    Args:
        lr: LR reflectance (band, y, x).
        hr: HR reflectance (band, y * scale, x * scale), or None.
        valid: Pixels that count (y * scale, x * scale); None: those that are finite everywhere.
        sr: SR reflectance, as large as HR, by the name of what made it.
        bands: Names of the bands.
        scale: HR pixels per LR pixel.
        mtf: Contrast at LR's Nyquist frequency of the sensor that SR is compared with LR by.
        border: HR pixels left out at each edge, rounded up to whole LR pixels.
        distances: Perceptual distances by name.

    Raises:
        GridError: The shapes do not belong together, or the border leaves too little.
    """
    pair = ArrayPair("the image", tuple(bands), scale, lr, hr, sr, valid)
    methods: list[Method] = [*baselines(pair.bands, scale, mtf), *map(ArrayMethod, sr)]
    part = measure_part(pair, inner_window(pair, border), methods, psf=PSF(scale, mtf), distances=distances)
    return {name: classes[ALL] for name, classes in _pooled([part]).items()}
