"""The discriminator with all that belongs to it: what it is shown, what it should say, and what fooling it means."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geosr.config.schema import TrainingSection
from geosr.losses import adversarial_objective, gradient_penalty, r1_penalty, sharpened


class Fooled(NamedTuple):
    """What the discriminator makes of SR, and the generator of that."""

    loss: Tensor
    """The generator's adversarial loss, without a gradient."""
    pull: Tensor
    """Its derivative by each value of SR."""
    scores: Tensor
    """The scores, with a gradient to the discriminator's weights: its own loss need not look at SR again."""


class Adversary(nn.Module):
    """Adversarial losses of HR and SR reflectance (batch, band, y, x) with valid pixels (batch, y, x).

    The network sees images in the generator's normalisation, in which an invalid pixel is the mean, in SR as in HR. It
    runs in the precision of the autocast around it; losses and penalties are float32.

    Args:
        network: From normalised images to scores (logits).
        training: The configuration's ``Training``.
        mean: Reflectance of each band that the network sees as 0.
        std: Reflectance of each band that is 1 above it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, training: TrainingSection, *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network, self.losses = network, training.Losses
        self.objective = adversarial_objective(training.Losses, label_smoothing=training.label_smoothing)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def fooled(self, sr: Tensor, hr: Tensor, valid: Tensor, *, scale: float = 1.0) -> "Fooled":
        """How well SR is taken for real, and what would do it better.

        Args:
            sr: SR; no gradient flows back from here, ``pull`` takes its place.
            hr: HR.
            valid: Valid pixels.
            scale: Factor on the loss in the network's gradients, which float16 needs; it is taken out of ``pull``.
        """
        real = None
        if self.objective.relativistic:
            with torch.no_grad():
                real = self.network(self.real(hr, valid))
        sr = sr.detach().requires_grad_(True)
        scores = self.network(self.seen(sr, valid))
        loss = self.objective.generator(scores, real)
        (pull,) = torch.autograd.grad(loss * scale, sr, retain_graph=True)
        return Fooled(loss.detach(), pull / scale, scores)

    def loss(
        self, sr: Tensor, hr: Tensor, valid: Tensor, *, fake: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Small when SR and HR are told apart; what is logged about it comes second.

        Args:
            sr: SR.
            hr: HR.
            valid: Valid pixels.
            fake: Scores of SR by the network as it is now, where they are known.
        """
        real = self.network(self.real(hr, valid))
        fake = self.network(self.seen(sr, valid)) if fake is None else fake
        loss = self.objective.discriminator(real, fake)
        of_real, of_fake = self.objective.probabilities(real.detach(), fake.detach())
        return loss, {
            "adversarial_loss": loss.detach(),
            "D(y)_prob": of_real,
            "D(G(x))_prob": of_fake,
            "accuracy": self.objective.accuracy(real.detach(), fake.detach()),
        }

    def r1(self, hr: Tensor, valid: Tensor, *, number: int) -> Tensor:
        """The weighted R1 penalty at the discriminator's update of this number, 0 where it is not due."""
        gamma, every = self.losses.r1_gamma, self.losses.r1_every
        if not gamma or number % every:
            return hr.new_zeros(())
        return gamma * every * r1_penalty(self.network, self.real(hr, valid))

    def gradient_penalty(self, sr: Tensor, hr: Tensor, valid: Tensor) -> Tensor:
        """The weighted penalty between SR and HR, 0 without a weight; its draws are those of torch's own generator."""
        if not self.losses.gp_weight:
            return hr.new_zeros(())
        images = self.real(hr, valid), self.seen(sr, valid)
        return self.losses.gp_weight * gradient_penalty(self.network, *images, generator=torch.default_generator)

    def real(self, hr: Tensor, valid: Tensor) -> Tensor:
        """HR as the network sees it, sharpened where the configuration says so."""
        return self.seen(sharpened(hr, valid) if self.losses.gan_gt_usm else hr, valid)

    def seen(self, image: Tensor, valid: Tensor) -> Tensor:
        """An image as the network sees it."""
        return torch.where(valid.unsqueeze(1), (image - self.mean) / self.std, 0.0)
