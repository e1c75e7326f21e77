"""The content loss: what SR should have in common with HR, term by term."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from geosr.config.schema import LossesSection
from geosr.degrade import PSF, usm_sharpen
from geosr.degrade.masks import filled
from geosr.errors import ConfigError, did_you_mean
from geosr.losses.edges import gradient
from geosr.losses.frequency import focal_frequency, log_spectral_distance
from geosr.losses.indices import index_pairs, indices
from geosr.losses.measurement import consistency
from geosr.losses.perceptual import perceptual_loss
from geosr.losses.pixel import charbonnier, l1, mse
from geosr.losses.smoothness import tv
from geosr.losses.spectral import sam

LOGGED = ("l1", "sam", "tv")
"""Terms that are logged whether they have a weight or not."""


@dataclass(frozen=True)
class _Term:
    """One entry of the sum."""

    name: str
    weight: float
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    """From SR, what it is compared with (batch, band, y, x) and the valid pixels of SR (batch, y, x)."""
    target: str = "hr"
    """What SR is compared with: ``hr``, ``lr``, or ``sharp``, a sharpened HR."""


class ContentLoss(nn.Module):
    """Weighted sum of the terms of a configuration, over valid pixels alone, in float32.

    Args:
        section: ``Training.Losses``.
        bands: Names of the images' bands.
        psf: The sensor's point-spread function, which makes LR of SR.

    Raises:
        ConfigError: A term looks at bands that are missing, or the perceptual loss cannot be built.
    """

    def __init__(self, section: LossesSection, bands: Sequence[str], psf: PSF) -> None:
        super().__init__()
        weights = [section.band_weights.get(name, 1.0) for name in bands] if section.band_weights else None
        rounded = partial(charbonnier, eps=section.charbonnier_eps, band_weights=weights)
        focal = partial(focal_frequency, alpha=section.fft_alpha)
        varying = partial(_tv, isotropic=section.tv_kind == "isotropic")
        measured = partial(consistency, psf=psf)
        target = "sharp" if section.l1_gt_usm else "hr"
        entries = [
            _Term("l1", section.l1_weight, partial(l1, band_weights=weights), target),
            _Term("charbonnier", section.charbonnier_weight, rounded, target),
            _Term("mse", section.mse_weight, partial(mse, band_weights=weights), target),
            _Term("fft", section.fft_weight, focal),
            _Term("spectrum", section.spectrum_weight, log_spectral_distance),
            _Term("gradient", section.gradient_weight, gradient),
            _Term("sam", section.sam_weight, sam),
            _Term("tv", section.tv_weight, varying),
            _Term("consistency", section.consistency_weight, measured, "lr"),
        ]
        self.entries = [entry for entry in entries if entry.weight or entry.name in LOGGED]
        if section.indices_weight:
            pairs = index_pairs(bands)
            self.entries.append(_Term("indices", section.indices_weight, partial(indices, pairs=pairs)))
        if section.perceptual_weight:
            self.perceptual = perceptual_loss(section, bands)
            target = "sharp" if section.percep_gt_usm else "hr"
            self.entries.append(_Term("perceptual", section.perceptual_weight, self.perceptual, target))

    def forward(
        self, sr: Tensor, hr: Tensor, valid: Tensor, lr: Tensor, *, only: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its terms by name, without weight and gradient.

        Args:
            sr: SR reflectance (batch, band, y * scale, x * scale).
            hr: HR reflectance; sharpened where the configuration says so.
            valid: Valid pixels (batch, y * scale, x * scale); what the others hold changes nothing.
            lr: LR reflectance (batch, band, y, x).
            only: Names of the terms that count; empty: all that have a weight.

        Raises:
            ConfigError: ``only`` names a term that does not exist or has no weight.
        """
        weighted = {entry.name: entry for entry in self.entries if entry.weight}
        for name in only:
            if name not in weighted:
                raise ConfigError(
                    f"Training.pretrain_losses names {name!r}; terms that have a weight: "
                    + (", ".join(weighted) or "none")
                    + did_you_mean(name, weighted)
                )
        chosen = [entry for name, entry in weighted.items() if not only or name in only]
        sr, targets = sr.float(), {"hr": hr, "lr": lr}
        if any(entry.target == "sharp" for entry in chosen):
            targets["sharp"] = sharpened(hr, valid)
        total, terms = sr.new_zeros(()), {}
        for entry in chosen:
            value = entry.loss(sr, targets[entry.target], valid)
            total = total + entry.weight * value
            terms[entry.name] = value.detach()
        return total, terms

    @torch.no_grad()
    def terms(
        self, sr: Tensor, hr: Tensor, valid: Tensor, lr: Tensor, *, skip: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Every term with a weight by name, and those of ``LOGGED``, against HR as it was measured.

        Args:
            sr: SR reflectance (batch, band, y * scale, x * scale).
            hr: HR reflectance.
            valid: Valid pixels (batch, y * scale, x * scale).
            lr: LR reflectance (batch, band, y, x).
            skip: Names of terms that are known already.
        """
        sr, targets = sr.float(), {"hr": hr, "lr": lr, "sharp": hr}
        return {
            entry.name: entry.loss(sr, targets[entry.target], valid) for entry in self.entries if entry.name not in skip
        }


def _tv(sr: Tensor, hr: Tensor, valid: Tensor, *, isotropic: bool) -> Tensor:
    return tv(sr, valid, isotropic=isotropic)


def sharpened(hr: Tensor, valid: Tensor) -> Tensor:
    """HR (batch, band, y, x) with its detail exaggerated, in its unit; invalid pixels (batch, y, x) have no part in it.

    What they hold afterwards is of no meaning.
    """
    return usm_sharpen(filled(hr, valid))
