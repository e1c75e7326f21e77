"""Every figure that geosr claims, measured on this machine in one run and written to ``benchmarks/RESULTS.md``.

The comparisons need interpreters that have the peers: opensr-utils, named by ``GEOSR_PEER_PYTHON``, and opensr-srgan,
named by ``GEOSR_SRGAN_PYTHON``; without them those rows say so.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

import geosr
from benchmarks import quality
from benchmarks.model_card import scene_table, table
from benchmarks.peer_opensr import save_plain_weights
from benchmarks.scale import MODEL as LARGE_AREAS
from benchmarks.scenes import synthetic_scene
from geosr.models import load_model

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
PEER = os.environ.get("GEOSR_PEER_PYTHON")
MODELS = ("s2-rgbn-x2", "s2-rgbn-x4")


def main() -> None:
    """Measure everything and write the report, or renew its section on scale."""
    if sys.argv[1:] == ["scale"]:
        before, _, after = RESULTS.read_text().partition(SCALE)
        RESULTS.write_text("\n\n".join(filter(None, [before.strip(), scale(), _after(after)])) + "\n")
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("GEOSR_BENCH_DIR")) as folder:
        work = Path(folder)
        parts = [header(), speed(work), memory(work), tiling(work), *(quality_table(name) for name in MODELS)]
        parts += [generator(), data_loading(), degradation(), preparation(), training(), scale()]
    RESULTS.write_text("\n\n".join(parts) + "\n")
    print(f"\nwritten to {RESULTS}")


def header() -> str:
    """What was measured where."""
    return (
        "# Results\n\n"
        f"Measured with `make bench` on {date.today():%Y-%m-%d}: {cpu()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}, geosr {geosr.__version__}. "
        "Speed is wall time of a whole call after import, each in a process of its own, one after the other."
    )


def speed(work: Path) -> str:
    """Speed against opensr-utils, and against the machine's own matrix product."""
    scene = synthetic_scene(work / "scene.tif", 2048)
    weights = save_plain_weights(work / "plain.pt")
    same = ["--weights", str(weights)]
    peak = ours("peak")
    pipeline, network = ours("nearest", scene, work / "nearest.tif"), ours("plain", scene, work / "plain.tif", *same)
    full = ours("plain", scene, work / "plain_fp32.tif", *same, "--precision", "fp32")
    compact = ours("compact", scene, work / "compact.tif")
    rows = [
        versus(
            "pipeline alone: nearest (geosr) and bilinear (opensr-utils), x4", pipeline, peer(scene, work / "peer.tif")
        ),
        versus("the same network, 335 k parameters, x4", network, peer(scene, work / "peer.tif", *same)),
    ]
    rate, best = compact["flops"] / compact["seconds"], peak[compact["precision"]]
    agreement = psnr(work / "plain.tif", work / "plain_fp32.tif")
    return (
        "## Speed: a scene of 2048 x 2048 pixels, four bands, uint16\n\n"
        + table(("what", "geosr", "opensr-utils", "ratio", "output geosr", "output opensr-utils"), rows)
        + f"\n\nThe same network in {network['precision']} and fp32 through geosr ({full['seconds']:.1f} s): "
        f"PSNR between the outputs {agreement:.1f} dB (target 60).\n\n"
        f"`compact` 64 x 16 with its consistency layer, inside `predict`: {rate / 1e9:.0f} GFLOP/s in "
        f"{compact['precision']}, {100 * rate / best:.0f} % of this machine's matrix product "
        f"({best / 1e9:.0f} GFLOP/s; fp32 {peak['fp32'] / 1e9:.0f}). Target 60 %. Reading, halo, interpolation, "
        "consistency, encoding, overviews and the final copy are in the time, not in the operations."
    )


def memory(work: Path) -> str:
    """Peak memory for a small and a large scene."""
    rows, peaks = [], []
    for size in (1024, 8192):
        scene = synthetic_scene(work / f"scene{size}.tif", size)
        done = ours("s2-rgbn-x2", scene, work / "memory.tif")
        peaks.append(done["peak_rss_bytes"])
        rows.append(
            (
                f"{size} x {size}",
                f"{peaks[-1] / 1e6:.0f} MB",
                f"{done['seconds']:.1f} s",
                f"{done['bytes'] / 1e6:.0f} MB",
            )
        )
    return (
        "## Memory: `s2-rgbn-x2`, four bands, uint16\n\n"
        + table(("input", "peak resident memory", "time", "output"), rows)
        + f"\n\nRatio {peaks[1] / peaks[0]:.2f} (target 1.1, below 1500 MB)."
    )


def tiling(work: Path) -> str:
    """Tiled against whole-image prediction, in reflectance and in digital numbers."""
    rows = []
    for name in MODELS:
        for precision in ("fp32", "auto"):
            resolver = geosr.load_model(name, precision=precision)
            worst, worst_dn = 0.0, 0
            for size in (613, 401):
                scene = synthetic_scene(work / "odd.tif", size)
                geosr.predict(scene, work / "t.tif", model=resolver, tile=1, dtype="float32", overwrite=True)
                geosr.predict(scene, work / "t16.tif", model=resolver, tile=1, overwrite=True)
                with geosr.open_scene(scene) as opened:
                    whole = resolver.superresolve(opened.read(bands=resolver.spec.bands))
                tiled, digital = read(work / "t.tif"), read(work / "t16.tif").astype(int)
                if not np.array_equal(np.isfinite(tiled), np.isfinite(whole.array)):
                    raise SystemExit(f"{name}: tiled and whole image disagree on which pixels are valid")
                worst = max(worst, float(np.nanmax(np.abs(tiled - whole.array))))
                worst_dn = max(worst_dn, int(np.abs(digital - whole.to_digital().astype(int)).max()))
            rows.append((name, resolver.precision, f"{worst:.1e}", worst_dn))
    return (
        "## Tiled against whole image: 613 x 613 and 401 x 401 pixels, smallest tiles\n\n"
        + table(("model", "precision", "largest difference, reflectance", "DN"), rows)
        + "\n\nTargets 1e-5 and 1."
    )


def quality_table(name: str) -> str:
    """How good a shipped model is on held-out scenes."""
    found = quality.measure(load_model(name))
    figures = {scene: {method: one.to_dict() for method, one in methods.items()} for scene, methods in found.items()}
    return (
        f"## Quality: `{name}` on scenes that it was not trained on\n\n"
        + scene_table(figures)
        + "\n\nGains are PSNR over bicubic in dB, four bands, peak 1.0. Consistency is the mean absolute difference "
        "between the degraded output and the input, in reflectance. The model's convolutions are fp32 here."
    )


def generator() -> str:
    """ESRGAN's generator against opensr-srgan's."""
    done = call(sys.executable, "-m", "benchmarks.generator")
    rows = [
        (
            one["tool"],
            one["precision"],
            f"{one['pixels_per_second']:,.0f}",
            f"**{one['ratio']:.2f} x**" if one["ratio"] else "not installed",
        )
        for one in done["speed"]
    ]
    return (
        "## Generator: ESRGAN 16 x 64, x4, 128 x 128 LR pixels, four bands\n\n"
        + table(("tool", "precision", "LR pixels per second", "as fast as opensr-srgan in fp32"), rows)
        + "\n\nThe two take turns; medians of seven turns of two images. "
        f"Target {done['target']:g} x in the default precision, whose output differs from its own fp32 by a PSNR of "
        f"{done['psnr']:.1f} dB (target {done['target_psnr']:g})."
    )


def data_loading() -> str:
    """Patches per second against TorchGeo."""
    scene = quality.DATA / "s2" / "virginia_coast_10m.tif"
    found = call(sys.executable, "-m", "benchmarks.data_loading", scene)["routes"]
    rows = [
        (one["route"], f"{one['patches_per_second']:.0f}", f"**{one['ratio']:.1f} x** {one['target']}") for one in found
    ]
    return (
        "## Data: four bands, LR 64 and HR 256 pixels, batches of 16, one worker\n\n"
        + table(("route", "patches per second", "ratio to two TorchGeo `RasterDataset` reads"), rows)
        + "\n\nGDAL's cache holds 8 MB, a quarter of the scene: a training set does not fit into it either."
    )


def degradation() -> str:
    """Time of the degradations against a training step."""
    print("measuring degradations", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.degradation"], cwd=HERE.parent, capture_output=True, text=True, check=True
    )
    return "## Degradation\n\n" + done.stdout.strip()


def preparation() -> str:
    """Time and memory of ``geosr prepare``."""
    done = call(sys.executable, "-m", "benchmarks.prepare")
    return (
        "## `geosr prepare`: a scene of 10 000 x 10 000 pixels, four bands, uint16\n\n"
        f"{done['seconds']:.0f} s, peak memory {done['peak_rss_bytes'] / 1e6:.0f} MB (target below 1000); "
        f"`--check` {done['check_seconds']:.0f} s, {done['violations']} violations."
    )


def training() -> str:
    """A training step against opensr-srgan, waiting for data, and the time to the first step."""
    done = call(sys.executable, "-m", "benchmarks.training")
    cases = {
        "cpu": "RCAB 16 x 64, x4, and PatchGAN, batches of 8, LR 32",
        "cuda": "ESRGAN 16 x 64, x4, and PatchGAN, batches of 32, LR 64",
    }
    rows = [
        (
            cases[one["device"]],
            one["device"],
            one["tool"],
            one["precision"],
            f"{one['seconds']:.3f} s",
            f"**{one['ratio']:.2f} x**" + (f" (target {one['target']:g})" if one["target"] else "")
            if one["ratio"]
            else "not installed",
        )
        for one in done["steps"]
    ]
    data, start = done["data"], done["start"]
    return (
        "## Training\n\n"
        + table(("networks", "device", "tool", "precision", "step", "as fast as opensr-srgan in fp32"), rows)
        + "\n\nBoth update the same two networks on L1 + SAM + BCE, without a perceptual loss, in their own Lightning "
        "trainers that take turns; medians of seven turns of ten steps, logging in it.\n\n"
        "Waiting for patches of COGs, one worker, `config_20m.yaml` with its discriminator: "
        f"{100 * data['share']:.1f} % of {data['step_time']:.2f} s a step (target below {100 * data['target']:.0f}). "
        "From the command to the end of the first step, `config_demo.yaml`: "
        f"{start['seconds']:.1f} s (target below {start['target']:.0f})."
    )


SCALE = "## Scale"


def _after(text: str) -> str:
    """What follows a section."""
    _, heading, rest = text.partition("\n## ")
    return f"{heading}{rest}".strip()


def scale() -> str:
    """A whole Sentinel-2 tile, and executors against each other."""
    print("measuring a whole tile", flush=True)
    done = subprocess.run([sys.executable, "-m", "benchmarks.scale"], cwd=HERE.parent, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return scale_table({one["what"]: one for one in map(json.loads, done.stdout.splitlines())})


def scale_table(found: dict[str, dict[str, Any]]) -> str:
    """What `benchmarks.scale` measured, by name."""
    cog, serial, jp2 = found["cog"], found["serial"], found["jp2"]
    names = {
        "cog": ("`geosr predict`, COG", "below 600 s, 2 GB", cog),
        "zarr": ("`geosr predict`, Zarr", "not slower than COG", cog),
        "accessor": ("`ds.geosr.superresolve()` to Zarr, Dask's threads", "1.15 x, 4 GB", cog),
        "serial": ("`geosr predict`, one process, two threads", "", serial),
        "processes": ("`--workers 2`", "", serial),
        "dask": ("`--dask local`, two workers of one thread", "1.1 x", serial),
    }
    rows = [
        (
            name,
            f"{found[what]['size']} x {found[what]['size']}",
            f"{found[what]['seconds']:.0f} s",
            f"**{found[what]['seconds'] / reference['seconds']:.2f} x**",
            f"{found[what]['peak_rss_bytes'] / 1e9:.2f} GB",
            f"{found[what]['bytes'] / 1e9:.1f} GB",
            target,
        )
        for what, (name, target, reference) in names.items()
    ]
    return (
        f"{SCALE}: `{LARGE_AREAS}`, four bands, uint16\n\n"
        + table(("what", "pixels", "whole command", "of the first", "largest process", "output", "target"), rows)
        + f"\n\nA product in JPEG 2000, {jp2['size']} x {jp2['size']} pixels: reading takes {jp2['reading']:.1f} s of "
        f"{jp2['processor']:.1f} s of processor time, {100 * jp2['reading'] / jp2['processor']:.0f} % (target 10); the "
        f"whole {jp2['seconds']:.1f} s of wall time."
    )


def ours(*arguments: object) -> dict[str, Any]:
    """One measurement of geosr."""
    return call(sys.executable, "-m", "benchmarks.measure", *arguments)


def peer(*arguments: object) -> dict[str, Any] | None:
    """One measurement of opensr-utils; None where it is not installed."""
    return None if PEER is None else call(PEER, "-m", "benchmarks.peer_opensr", *arguments)


def call(*command: object) -> dict[str, Any]:
    """The JSON that a command prints on its last line."""
    print("measuring", *(Path(str(part)).name for part in command[1:]), flush=True)
    done = subprocess.run([str(part) for part in command], cwd=HERE.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print("   ", result, flush=True)
    return result


def versus(what: str, mine: dict[str, Any], theirs: dict[str, Any] | None) -> tuple[object, ...]:
    """A row of the comparison."""
    own = (what, f"{mine['seconds']:.1f} s, {mine['peak_rss_bytes'] / 1e9:.2f} GB")
    if theirs is None:
        return (*own, "not installed", "", f"{mine['bytes'] / 1e6:.0f} MB", "")
    return (
        *own,
        f"{theirs['seconds']:.1f} s, {theirs['peak_rss_bytes'] / 1e9:.2f} GB",
        f"**{theirs['seconds'] / mine['seconds']:.1f} x** (target 4)",
        f"{mine['bytes'] / 1e6:.0f} MB, COG",
        f"{theirs['bytes'] / 1e6:.0f} MB",
    )


def psnr(first: Path, second: Path) -> float:
    """PSNR between two outputs in dB, peak 1.0 in reflectance (scale 1e-4)."""
    a, b = read(first), read(second)
    error = np.mean([np.mean(((x.astype(np.float32) - y) * 1e-4) ** 2) for x, y in zip(a, b, strict=True)])
    return float(-10 * np.log10(error))


def read(path: Path) -> np.ndarray:
    """All values of a raster."""
    with rasterio.open(path) as file:
        return file.read()


def load() -> float:
    """Processes that want to run, mean over a minute."""
    return os.getloadavg()[0]


def is_busy() -> bool:
    """Whether others want more of the machine than one core."""
    return load() > (os.cpu_count() or 1) + 1


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
