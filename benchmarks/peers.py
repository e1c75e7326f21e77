"""geosr's shipped models beside other programs on the held-out scenes, written to ``benchmarks/peers.md``.

Each method runs in a process of its own, with all cores, one after the other (`benchmarks.peer_images`). The other
programs have environments of their own, whose interpreters are named by variables (``make bench-peers`` makes them);
who is not there is left out with a line that says so.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

import geosr
from benchmarks import guided, quality
from benchmarks.quality import Figures, Pair
from benchmarks.run import HERE, call, cpu, is_busy, load, table
from geosr.degrade import PSF
from geosr.models import ModelSpec, shipped_models

BANDS = ("B02", "B03", "B04", "B08")
RGB = ("B04", "B03", "B02")
BASELINES = ("bicubic", "Lanczos", "back-projection")


@dataclass(frozen=True)
class Method:
    """Who takes part, and how it is started."""

    name: str
    command: tuple[str, ...]
    bands: tuple[str, ...] | None = None
    """The bands of its output where they are not those of the images."""


@dataclass(frozen=True)
class Peer:
    """Another program."""

    name: str
    module: str
    variable: str
    """Environment variable that names its interpreter."""
    bands: tuple[str, ...] | None = None

    @property
    def python(self) -> str | None:
        """Its interpreter, if it is there."""
        named = os.environ.get(self.variable, "")
        return None if named in ("", "none") else named


INTERPOLATION = Peer("opensr-utils", "peer_interpolation", "GEOSR_PEER_PYTHON")
PHOTOGRAPHS = Peer("Real-ESRGAN", "peer_realesrgan", "GEOSR_NCNN_PYTHON", RGB)
GUIDED = Peer("s2super", "peer_s2super", "GEOSR_S2SUPER_PYTHON")
PEERS = (INTERPOLATION, PHOTOGRAPHS, GUIDED)


@dataclass(frozen=True)
class Result:
    """What a method made of every image, what it is, and what it took."""

    tool: str
    seconds: float
    memory: int
    images: Mapping[str, torch.Tensor]
    """SR (1, band, y, x) by scene."""
    bands: tuple[str, ...]


def main() -> None:
    """Run every method and write the report."""
    with tempfile.TemporaryDirectory() as folder:
        parts = [header()]
        for scale in (2, 4):
            parts += ten_metres(Path(folder) / str(scale), scale)
        parts.append(twenty_metres(Path(folder) / "20m"))
    (HERE / "peers.md").write_text("\n\n".join(parts) + "\n")


def header() -> str:
    """What was measured where, how, and who is missing."""
    busy = f" The machine was busy with other work (load {load():.0f}): times are too long." if is_busy() else ""
    missing = "".join(
        f"\n- {peer.name} is left out: {peer.variable} names no interpreter." for peer in PEERS if peer.python is None
    )
    return (
        "# geosr beside other programs\n\n"
        f"Measured with `make bench-peers` on {date.today():%Y-%m-%d}: {cpu()}, {os.cpu_count()} cores, geosr "
        f"{geosr.__version__}. The scenes are in no training set of geosr's models. Their images are the truth; the "
        "input is made of them by Gaussian blur and averaging (MTF 0.3 at the Nyquist frequency), eight pixels at the "
        "edge do not count. The best of each row is in bold, whoever it is.\n\n"
        "- PSNR: dB over bicubic interpolation, peak 1.0 in reflectance. SAM: spectral angle, degrees. RMSE: "
        "reflectance, mean over bands; below bicubic's: mean over bands and scenes of the relative decrease. "
        "ERGAS: per cent. Consistency: mean absolute difference between the degraded output and the input, in "
        "reflectance.\n"
        "- Spectrum gap: dB between the power spectrum of the output and that of the truth, in the band and at the "
        "frequency, up to 0.8 of Nyquist's, where they differ most. Texture: standard deviation within the flattest "
        "tenth of all blocks of 16 x 16 pixels over that of the truth; 1 is right, more is invented.\n"
        "- Time and memory: all scenes one after the other, the second run of each; the peak of the whole process, "
        "libraries included. Each method has a process of its own and all cores." + busy + "\n"
        "- LPIPS and DISTS need weights that are not in any package here, so they are not in the table." + missing
    )


def ten_metres(work: Path, scale: int) -> list[str]:
    """The tables of the 10 m bands: all four, and at x4 the three that photographs have."""
    psf = PSF(scale, quality.MTF)
    truth = {Path(scene.path).stem: quality.pair(scene, BANDS, psf) for scene in quality.SCENES}
    save(work, {name: {"lr": pair.lr[0].numpy(), "bands": BANDS, "scale": scale} for name, pair in truth.items()})
    models = [weights.spec for weights in shipped_models() if is_plain(weights.spec, scale)]
    for spec in models:
        quality.require_unseen(spec)
    methods = [*ours(BASELINES), *theirs(INTERPOLATION), *ours([spec.name for spec in models])]
    four = {method.name: run(method, work, BANDS) for method in methods}
    parts = [section(f"x{scale}: four 10 m bands, {10 * scale} m to 10 m", four, truth, BANDS)]
    if scale != 4 or PHOTOGRAPHS.python is None:
        return parts
    three = four | {method.name: run(method, work, BANDS) for method in theirs(PHOTOGRAPHS)}
    note = (
        "Real-ESRGAN was trained on photographs that were blurred, compressed and resized at random, not on this "
        "degradation, and to please the eye rather than to measure. It takes and gives 8-bit RGB: reflectance is "
        "divided by the 99.9th percentile of the image, cut to 0..1 and rounded to 8 bits, and multiplied by it "
        "again. The others are the same as above, measured on three bands."
    )
    return [*parts, section("x4: red, green and blue", three, truth, RGB, note=note)]


def twenty_metres(work: Path) -> str:
    """The table of the 20 m bands, guided by the 10 m bands."""
    truth, skipped = guided.pairs()
    save(work, {name: one.stored() for name, one in truth.items()})
    models = [name for name in (guided.NAME,) if guided.shipped()]
    methods = [*ours(BASELINES), *theirs(GUIDED), *ours(models)]
    found = {method.name: run(method, work, guided.COARSE) for method in methods}
    note = (
        "Wald's protocol: the 20 m bands are degraded to 40 m and the 10 m bands, which guide, to 20 m; the truth is "
        "the 20 m bands as they are. s2super was trained on L2A images interpolated bilinearly; it gets that here, "
        "and is not fitted to the scene first. It sees blue, green and red, not the near infrared."
    )
    if skipped:
        note += f" {len(skipped)} scenes that `{guided.NAME}` was trained on are left out."
    if not models:
        note += f" `{guided.NAME}` is not among the shipped models yet."
    pairs = {name: one.pair for name, one in truth.items()}
    return section("x2: six 20 m bands, 40 m to 20 m", found, pairs, guided.COARSE, note=note)


def is_plain(spec: ModelSpec, scale: int) -> bool:
    """Whether a model takes the four 10 m bands to ``scale`` times their resolution."""
    return spec.scale == scale and spec.bands == BANDS


def save(work: Path, images: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what the methods read."""
    (work / "images").mkdir(parents=True)
    for name, image in images.items():
        np.savez(work / "images" / f"{name}.npz", **image)


def ours(names: Sequence[str]) -> list[Method]:
    """Methods that run in this environment."""
    return [Method(name, (sys.executable, "-m", "benchmarks.peer_geosr", name)) for name in names]


def theirs(peer: Peer) -> list[Method]:
    """The method of another program, if it is there."""
    return (
        [] if peer.python is None else [Method(peer.name, (peer.python, "-m", f"benchmarks.{peer.module}"), peer.bands)]
    )


def run(method: Method, work: Path, bands: tuple[str, ...]) -> Result:
    """What a method makes of the images in a folder."""
    out = work / method.name
    out.mkdir()
    done = call(*method.command, work / "images", out)
    images = {path.stem: torch.from_numpy(np.load(path))[None] for path in sorted(out.glob("*.npy"))}
    return Result(done["tool"], done["seconds"], done["peak_rss_bytes"], images, method.bands or bands)


def section(
    title: str, results: Mapping[str, Result], truth: Mapping[str, Pair], bands: Sequence[str], *, note: str = ""
) -> str:
    """Two tables, the gain in each scene and the means of the rest, and what each method is."""
    order = next(iter(results.values())).bands
    pairs = {scene: pair.of([order.index(band) for band in bands]) for scene, pair in truth.items()}
    found = {
        name: {
            scene: quality.figures(sr[:, [result.bands.index(band) for band in bands]], pairs[scene])
            for scene, sr in result.images.items()
        }
        for name, result in results.items()
    }
    gain = {
        scene: {name: figures[scene].psnr - found["bicubic"][scene].psnr for name, figures in found.items()}
        for scene in pairs
    }
    gain["mean"] = {name: fmean(gain[scene][name] for scene in pairs) for name in found}
    rows = [row(f"PSNR, {scene}", values, "{:+.2f}", max) for scene, values in gain.items()]
    for figure, form, of, best in MEANS:
        values = {name: fmean(map(of, figures.values())) for name, figures in found.items()}
        rows.append(row(figure, values, form, best))
    less = {
        name: fmean(less_error(figures[scene], found["bicubic"][scene]) for scene in pairs)
        for name, figures in found.items()
    }
    rows.append(row("RMSE below bicubic's, %", less, "{:.1f}", max))
    rows.append(row("time, s", {name: result.seconds for name, result in results.items()}, "{:.2f}", min))
    memory = {name: result.memory / 1e6 for name, result in results.items()}
    rows.append(row("memory, MB", memory, "{:.0f}", min))
    listed = "\n".join(f"- {name}: {result.tool}" for name, result in results.items())
    return "\n\n".join(filter(None, [f"## {title}", note, table(("", *results), rows), listed]))


def less_error(ours: Figures, theirs: Figures) -> float:
    """Per cent by which the RMSE of one image is below that of another, mean over bands."""
    return 100 * fmean(1 - one / other for one, other in zip(ours.rmse, theirs.rmse, strict=True))


MEANS: tuple[tuple[str, str, Callable[[Figures], float], Callable[[Sequence[float]], float]], ...] = (
    ("SAM, °", "{:.2f}", lambda one: one.sam, min),
    ("ERGAS", "{:.2f}", lambda one: one.ergas, min),
    ("RMSE", "{:.4f}", lambda one: fmean(one.rmse), min),
    ("consistency", "{:.1e}", lambda one: one.consistency, min),
    ("spectrum gap, dB", "{:.1f}", lambda one: one.spectrum_gap, min),
    ("texture", "{:.2f}", lambda one: one.texture, lambda values: min(values, key=lambda value: abs(value - 1))),
)
"""Figures whose mean over scenes is shown: name, format, value, and which of several is the best."""


def row(
    name: str, values: Mapping[str, float], form: str, best: Callable[[Sequence[float]], float]
) -> tuple[object, ...]:
    """A row of a table, its best values in bold."""
    shown = [form.format(value) for value in values.values()]
    winner = form.format(best(list(values.values())))
    return (name, *(f"**{text}**" if text == winner else text for text in shown))


if __name__ == "__main__":
    main()
