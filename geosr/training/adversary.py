"""The discriminator with all that belongs to it: what it is shown, what it should say, and what fooling it means."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geosr.config.schema import TrainingSection
from geosr.degrade.resample import bicubic
from geosr.losses import adversarial_objective, feature_matching, gradient_penalty, r1_penalty, sharpened
from geosr.models.discriminators import Discriminator, Look

Scores = Sequence[Tensor]
"""Logits, a tensor for each scale."""

LEAST_DETAIL = 1e-4
"""Reflectance; a batch whose HR has less detail than a digital number of Sentinel-2 is shown none."""


class Fooled(NamedTuple):
    """What the discriminator makes of SR, and the generator of that."""

    loss: Tensor
    """What ``adv_loss_beta`` is the weight of, without a gradient: the adversarial loss and, by as much as it weighs
    against that, feature matching."""
    terms: Mapping[str, Tensor]
    """Both by name, without weights."""
    pull: Tensor
    """Derivative of the loss by each value of SR."""
    scores: Scores
    """The scores, with a gradient to the discriminator's weights: its own loss need not look at SR again."""


class Adversary(nn.Module):
    """Adversarial losses of SR reflectance (batch, band, y, x) and what belongs to it: ``hr``, ``lr`` and ``valid``.

    The network sees images in the generator's normalisation, in which an invalid pixel is the mean, in SR as in HR. It
    runs in the precision of the autocast around it; losses and penalties are float32. Where it looks at several scales,
    they are means over the scales.

    Args:
        network: From normalised images to scores (logits).
        training: The configuration's ``Training``.
        mean: Reflectance of each band that the network sees as 0.
        std: Reflectance of each band that is 1 above it.
        conditional: Show the network the bicubic-upsampled LR beside each image.
        detail: Show it what bicubic interpolation of LR misses instead of the image, each band in units of how much
            that is in HR. Else a band of much contrast and little detail, such as B08, counts for little.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Discriminator,
        training: TrainingSection,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        conditional: bool = False,
        detail: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.losses, self.conditional, self.detail = network, training.Losses, conditional, detail
        self.objective = adversarial_objective(training.Losses, label_smoothing=training.label_smoothing)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def fooled(self, sr: Tensor, batch: Mapping[str, Tensor], *, scale: float = 1.0) -> Fooled:
        """How well SR is taken for real, and what would do it better.

        Args:
            sr: SR; no gradient flows back from here, ``pull`` takes its place.
            batch: HR, LR and the valid pixels.
            scale: Factor on the loss in the network's gradients, which float16 needs; it is taken out of ``pull``.
        """
        matching = self.losses.feature_matching_weight > 0
        given = self.given(batch)
        sr = sr.detach().requires_grad_(True)
        fake = self.look(self.shown(sr, batch), given, with_features=matching)
        real = None
        if matching or self.objective.relativistic:
            with torch.no_grad():
                real = self.look(self.real(batch), given, with_features=matching)
        loss = over_scales(self.objective.generator, fake.scores, *([] if real is None else [real.scores]))
        terms = {"adversarial_loss": loss.detach()}
        if real and real.features:
            distance = feature_matching(fake.features, real.features)
            terms["feature_matching_loss"] = distance.detach()
            loss = loss + self.losses.feature_matching_weight / self.losses.adv_loss_beta * distance
        (pull,) = torch.autograd.grad(loss * scale, sr, retain_graph=True)
        return Fooled(loss.detach(), terms, pull / scale, fake.scores)

    def loss(
        self, sr: Tensor, batch: Mapping[str, Tensor], *, fake: Scores | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Small when SR and HR are told apart; what is logged about it comes second.

        Args:
            sr: SR.
            batch: HR, LR and the valid pixels.
            fake: Scores of SR by the network as it is now, where they are known.
        """
        given = self.given(batch)
        real = self.look(self.real(batch), given).scores
        fake = self.look(self.shown(sr, batch), given).scores if fake is None else fake
        loss = over_scales(self.objective.discriminator, real, fake)
        of_real, of_fake = over_scales(self.objective.probabilities, real, fake)
        return loss, {
            "adversarial_loss": loss.detach(),
            "D(y)_prob": of_real,
            "D(G(x))_prob": of_fake,
            "accuracy": over_scales(self.objective.accuracy, real, fake),
        }

    def r1(self, batch: Mapping[str, Tensor], *, number: int) -> Tensor:
        """The weighted R1 penalty at the discriminator's update of this number, 0 where it is not due."""
        gamma, every = self.losses.r1_gamma, self.losses.r1_every
        if not gamma or number % every:
            return batch["hr"].new_zeros(())
        return gamma * every * r1_penalty(self._critic(batch), self.real(batch))

    def gradient_penalty(self, sr: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """The weighted penalty between SR and HR, 0 without a weight; its draws are those of torch's own generator."""
        if not self.losses.gp_weight:
            return batch["hr"].new_zeros(())
        images = self.real(batch), self.shown(sr, batch)
        penalty = gradient_penalty(self._critic(batch), *images, generator=torch.default_generator)
        return self.losses.gp_weight * penalty

    def _critic(self, batch: Mapping[str, Tensor]) -> Callable[[Tensor], Scores]:
        """From images to scores, LR being what it is: a penalty is on the gradient by the image alone."""
        given = self.given(batch)
        return lambda image: self.look(image, given).scores

    def look(self, image: Tensor, given: Tensor | None, *, with_features: bool = False) -> Look:
        """What the network makes of an image as it sees it, and of what it is given beside it."""
        shown = image if given is None else torch.cat([image, given], dim=1)
        return self.network(shown, with_features=with_features)

    def given(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """The bicubic-upsampled LR as the network sees it beside an image; None where it is not conditional."""
        if not self.conditional:
            return None
        return self.seen(interpolated(batch), batch["valid"])

    def real(self, batch: Mapping[str, Tensor]) -> Tensor:
        """HR as the network sees it, sharpened where the configuration says so."""
        hr, valid = batch["hr"], batch["valid"]
        return self.shown(sharpened(hr, valid) if self.losses.gan_gt_usm else hr, batch)

    def shown(self, image: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """What the network judges of an image."""
        if not self.detail:
            return self.seen(image, batch["valid"])
        base, valid = interpolated(batch), batch["valid"].unsqueeze(1)
        missed = torch.where(valid, batch["hr"] - base, 0.0)
        power = missed.square().sum((0, 2, 3), keepdim=True) / valid.sum().clamp(min=1)
        return torch.where(valid, (image - base) / power.sqrt().clamp(min=LEAST_DETAIL), 0.0)

    def seen(self, image: Tensor, valid: Tensor) -> Tensor:
        """An image as the network sees it."""
        return torch.where(valid.unsqueeze(1), (image - self.mean) / self.std, 0.0)


def interpolated(batch: Mapping[str, Tensor]) -> Tensor:
    """LR on the grid of HR, by bicubic interpolation."""
    return bicubic(batch["lr"], batch["hr"].shape[-1] // batch["lr"].shape[-1])


def over_scales(judge: Callable[..., Tensor], *scores: Scores) -> Tensor:
    """Mean over the scales of what is made of the scores of each."""
    return torch.stack([judge(*of_scale) for of_scale in zip(*scores, strict=True)]).mean(0)
