"""The content loss: what SR should have in common with HR, term by term."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geosr.config.schema import LossesSection
from geosr.degrade import usm_sharpen
from geosr.degrade.masks import filled
from geosr.errors import ConfigError, did_you_mean
from geosr.losses.perceptual import Perceptual
from geosr.losses.pixel import l1
from geosr.losses.smoothness import tv
from geosr.losses.spectral import sam


@dataclass(frozen=True)
class _Term:
    """One entry of the sum."""

    name: str
    weight: float
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    """From SR, HR (batch, band, y, x) and the valid pixels (batch, y, x)."""
    sharpened: bool = False
    """Whether HR is sharpened first."""


class ContentLoss(nn.Module):
    """Weighted sum of the terms of a configuration, over valid pixels alone.

    Args:
        section: ``Training.Losses``.
        bands: Names of the images' bands.

    Raises:
        ConfigError: The perceptual loss cannot be built.
    """

    def __init__(self, section: LossesSection, bands: Sequence[str]) -> None:
        super().__init__()
        self.entries = [
            _Term("l1", section.l1_weight, l1, section.l1_gt_usm),
            _Term("sam", section.sam_weight, sam),
            _Term("tv", section.tv_weight, _tv),
        ]
        if section.perceptual_weight:
            self.perceptual = Perceptual(
                bands,
                layers=section.perceptual_layers,
                weights=section.perceptual_weights,
                white=section.perceptual_white,
            )
            self.entries.append(_Term("perceptual", section.perceptual_weight, self.perceptual, section.percep_gt_usm))

    def forward(
        self, sr: Tensor, hr: Tensor, valid: Tensor, *, only: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its terms by name, without weight and gradient.

        Args:
            sr: SR reflectance (batch, band, y, x).
            hr: HR reflectance; sharpened where the configuration says so.
            valid: Valid pixels (batch, y, x); what the others hold changes nothing.
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
        sharp = sharpened(hr, valid) if any(entry.sharpened for entry in chosen) else hr
        total, terms = sr.new_zeros(()), {}
        for entry in chosen:
            value = entry.loss(sr, sharp if entry.sharpened else hr, valid)
            total = total + entry.weight * value
            terms[entry.name] = value.detach()
        return total, terms

    @torch.no_grad()
    def terms(self, sr: Tensor, hr: Tensor, valid: Tensor, *, skip: Collection[str] = ()) -> dict[str, Tensor]:
        """Every term by name, with a weight or not, against HR as it was measured; perceptual only with a weight.

        Args:
            sr: SR reflectance (batch, band, y, x).
            hr: HR reflectance.
            valid: Valid pixels (batch, y, x).
            skip: Names of terms that are known already.
        """
        return {entry.name: entry.loss(sr, hr, valid) for entry in self.entries if entry.name not in skip}


def _tv(sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
    return tv(sr, valid)


def sharpened(hr: Tensor, valid: Tensor) -> Tensor:
    """HR (batch, band, y, x) with its detail exaggerated, in its unit; invalid pixels (batch, y, x) have no part in it.

    What they hold afterwards is of no meaning.
    """
    return usm_sharpen(filled(hr, valid))
