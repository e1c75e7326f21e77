"""Time opensr-utils on one scene and print one line of JSON.

Run by an interpreter that has opensr-utils installed (``GEOSR_PEER_PYTHON`` names it for ``benchmarks.run``); geosr
itself is not needed there:

    $GEOSR_PEER_PYTHON -m benchmarks.peer_opensr scene.tif sr.tif                       # its own bilinear model
    $GEOSR_PEER_PYTHON -m benchmarks.peer_opensr scene.tif sr.tif --weights plain.pt    # the shared network

Both tools load `plain_network` with the same weights file, so the network's arithmetic is the same and what differs is
reading, tiling, stitching and writing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from benchmarks.peer_images import peak_memory

SCALE = 4


def plain_network(*, bands: int = 4, width: int = 64, depth: int = 8, scale: int = SCALE) -> nn.Sequential:
    """Reflectance at ``scale`` times the resolution from a stack of 3x3 convolutions and one pixel shuffle.

    The receptive field reaches ``depth + 2`` low-resolution pixels from the centre.
    """
    layers: list[nn.Module] = [nn.Conv2d(bands, width, 3, padding=1), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(width, bands * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
    return nn.Sequential(*layers)


def save_plain_weights(path: str | Path, *, seed: int = 0) -> Path:
    """Path of a new state dict for `plain_network`, random but the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    network = plain_network()
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(convolution.bias)
    # Outputs about the mean reflectance of land, 0.11, with little spread: no tool clips them to something easy to
    # compress.
    with torch.no_grad():
        convolutions[-1].weight.mul_(0.5)
        convolutions[-1].bias.fill_(0.11)
    torch.save(network.state_dict(), path)
    return Path(path)


def run_peer(scene: Path, out: Path, *, weights: Path | None, batch_size: int | None) -> dict[str, object]:
    """Seconds, output bytes and peak memory of one ``opensr_utils.super_resolve`` call on the CPU.

    Window (128 x 128), overlap (8) and batch size (16) are the peer's defaults unless ``batch_size`` is given.
    """
    import opensr_utils
    import opensr_utils.pipeline  # otherwise its imports would count as part of the run

    network = None
    if weights is not None:
        network = plain_network()
        network.load_state_dict(torch.load(weights, weights_only=True))
        network.eval()
    options: dict[str, object] = {"factor": SCALE, "device": "cpu", "overwrite": True}
    if batch_size is not None:
        options["batch_size"] = batch_size

    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):  # it reports progress on stdout, which belongs to the JSON line
        written = opensr_utils.super_resolve(str(scene), model=network, output=str(out), **options)
    seconds = time.perf_counter() - start

    return {
        "tool": f"opensr-utils {version('opensr-utils')}",
        "model": "bilinear" if weights is None else "plain",
        "seconds": round(seconds, 3),
        "output": str(written),
        "bytes": Path(written).stat().st_size,
        "peak_rss_bytes": peak_memory(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Parse the command line, run once, print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, help="state dict of plain_network (none: the peer's bilinear model)")
    parser.add_argument("--batch-size", type=int, help="windows per batch (the peer's default: 16)")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (its default: all cores)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(json.dumps(run_peer(args.scene, args.out, weights=args.weights, batch_size=args.batch_size)))


if __name__ == "__main__":
    main()
