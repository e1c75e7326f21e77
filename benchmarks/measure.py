"""One measurement in a process of its own, printed as one line of JSON: ``python -m benchmarks.measure KIND ...``."""

import argparse
import json
from pathlib import Path
from time import perf_counter

import torch

import geosr.inference  # before any clock starts
from benchmarks.peer_images import peak_memory
from benchmarks.peer_opensr import plain_network
from geosr.models import Model, ModelSpec, load_model

BANDS = ("B02", "B03", "B04", "B08")


def nearest() -> Model:
    """Upsampling x4 by repetition: what is left is reading, encoding and writing."""
    spec = ModelSpec(
        name="nearest",
        architecture="interpolation",
        scale=4,
        bands=BANDS,
        arguments={"mode": "nearest"},
        consistency_mtf=None,
    )
    return Model(spec)


def plain(weights: Path) -> Model:
    """The network that both tools run."""
    network = plain_network()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return Model(ModelSpec(name="plain", architecture="plain", scale=4, bands=BANDS, consistency_mtf=None), network)


def compact_64x16() -> Model:
    """``compact`` with 64 channels and 16 blocks, its consistency layer on."""
    torch.manual_seed(0)
    arguments = {"channels": 64, "blocks": 16, "mean": [0.1] * 4, "std": [0.1] * 4}
    return Model(ModelSpec(name="compact-64x16", architecture="compact", scale=4, bands=BANDS, arguments=arguments))


def flops(model: Model, pixels: int) -> float:
    """Floating-point operations of the convolutions for that many LR pixels, halo not counted."""
    convolutions = [layer for layer in model.network.modules() if isinstance(layer, torch.nn.Conv2d)]
    return 2.0 * sum(layer.weight.numel() for layer in convolutions) * pixels


def predict(scene: Path, out: Path, model: Model, precision: str) -> dict[str, float | str]:
    """Seconds of a whole prediction after import, its memory and its output."""
    started = perf_counter()
    resolver = geosr.SuperResolver(model, precision=precision)
    done = geosr.predict(scene, out, model=resolver, overwrite=True)
    seconds = perf_counter() - started
    with geosr.open_scene(scene) as opened:
        pixels = opened.geobox.shape[0] * opened.geobox.shape[1]
    return {
        "seconds": seconds,
        "precision": done.precision,
        "bytes": done.bytes,
        "peak_rss_bytes": peak_memory(),
        "flops": flops(model, pixels),
    }


def matrix_peak(*, size: int = 2048, repeats: int = 15) -> dict[str, float]:
    """The best rate of a square matrix product in this process, operations per second."""
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        best = 0.0
        for _ in range(repeats):
            started = perf_counter()
            a @ b
            best = max(best, 2 * size**3 / (perf_counter() - started))
        rates[name] = best
    return rates


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("nearest", "plain", "compact", "s2-rgbn-x2", "s2-rgbn-x4", "peak"))
    parser.add_argument("scene", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    if args.kind == "peak":
        print(json.dumps(matrix_peak()))
        return
    if args.kind == "nearest":
        model = nearest()
    elif args.kind == "plain":
        model = plain(args.weights)
    elif args.kind == "compact":
        model = compact_64x16()
    else:
        model = load_model(args.kind)
    print(json.dumps(predict(args.scene, args.out, model, args.precision)))


if __name__ == "__main__":
    main()
