"""Perceptual distances of an evaluation, where the weights of their networks are on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from geosr import metrics
from geosr.errors import InputError
from geosr.evaluation.figures import Distance
from geosr.losses.perceptual.dists import DISTSLoss
from geosr.losses.perceptual.lpips import ALEXNET, LPIPSLoss
from geosr.losses.perceptual.vgg import VGG16
from geosr.losses.perceptual.weights import Published
from geosr.sensors import RGB

PUBLISHED: Mapping[str, Published] = {"lpips": ALEXNET, "dists": VGG16}
"""Whose weights each distance needs."""


@dataclass(frozen=True)
class Perceptual:
    """Files of weights by the distance's name, and what is missing."""

    weights: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def distances(self, bands: Sequence[str]) -> dict[str, Distance]:
        """The distances of images with these bands; none where red, green and blue are not among them."""
        if not set(RGB) <= set(bands):
            return {}
        found: dict[str, Distance] = {}
        if "lpips" in self.weights:
            alexnet = LPIPSLoss(bands, network="alex", weights=self.weights["lpips"])
            found["lpips"] = partial(metrics.lpips, network=alexnet)
        if "dists" in self.weights:
            found["dists"] = partial(metrics.dists, network=DISTSLoss(bands, weights=self.weights["dists"]))
        return found


def find_perceptual(given: Mapping[str, str | os.PathLike[str] | None]) -> Perceptual:
    """The distances whose weights are there; nothing is downloaded.

    Args:
        given: Files that the user names, by the distance's name; None looks in torch's cache.

    Raises:
        InputError: A file does not exist.
    """
    weights, notes = {}, []
    for name, published in PUBLISHED.items():
        file = given.get(name)
        if file is not None and not os.path.isfile(file):
            raise InputError(f"--{name} {file} does not exist; it is to be {published.file} from {published.url}")
        cached = Path(torch.hub.get_dir()) / "checkpoints" / published.file
        if file is not None or cached.is_file():
            weights[name] = os.fspath(file or cached)
        else:
            notes.append(
                f"{name.upper()} is not measured: the weights of {published.name} are missing; get {published.url} and "
                f"give --{name} {published.file}"
            )
    return Perceptual(weights, tuple(notes))
