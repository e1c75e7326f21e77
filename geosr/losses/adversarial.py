"""What generator and discriminator want of the discriminator's scores (logits, of any shape) at one scale."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geosr.config.names import OBJECTIVES
from geosr.config.schema import LossesSection
from geosr.errors import ConfigError, did_you_mean


def adversarial_objective(section: LossesSection, *, label_smoothing: bool) -> "Objective":
    """The objective that a configuration asks for.

    Args:
        section: Its ``Training.Losses``.
        label_smoothing: The discriminator's target for HR is 0.9 instead of 1, where there is one (bce, lsgan).

    Raises:
        ConfigError: The objective is unknown, or cannot be relativistic.
    """
    return Objective(section.adv_loss_type, section.relativistic_average_d, 0.9 if label_smoothing else 1.0)


@dataclass(frozen=True)
class Objective:
    """Losses of both networks, means over all scores, computed in float32.

    ============= ======================================= ===================
    kind          discriminator                           generator
    ============= ======================================= ===================
    bce           (BCE(real, 1) + BCE(fake, 0)) / 2       BCE(fake, 1)
    hinge         (max(0, 1 - real) + max(0, 1 + fake))/2 -fake
    lsgan         ((real - 1)**2 + fake**2) / 2           (fake - 1)**2 / 2
    wasserstein   fake - real                             -fake
    ============= ======================================= ===================

    Relativistic: from a real score the mean of the fake ones is subtracted first, from a fake score that of the real
    ones; lsgan's targets are then 1 and -1. The generator's loss is the discriminator's with real and fake exchanged.

    The discriminator's loss is the mean of its two terms, as in opensr-srgan and in the paper of lsgan; those of bce,
    hinge and relativistic objectives add them. Adam does not notice, but a gradient penalty weighs twice as much.

    References:
        I. Goodfellow et al., "Generative adversarial nets", NeurIPS 2014, section 3 (bce, the generator's that does not
        saturate).
        J. H. Lim, J. C. Ye, "Geometric GAN", arXiv 1705.02894, 2017 (hinge).
        X. Mao et al., "Least squares generative adversarial networks", ICCV 2017 (lsgan, with targets 0 and 1).
        M. Arjovsky et al., "Wasserstein generative adversarial networks", ICML 2017, equation 2.
        A. Jolicoeur-Martineau, "The relativistic discriminator: a key element missing from standard GAN", ICLR 2019
        (relativistic average).
    """

    kind: str
    relativistic: bool = False
    """Whether ``generator`` needs the real scores too."""
    real_target: float = 1.0
    """The discriminator's target for real scores; bce and lsgan."""

    def __post_init__(self) -> None:
        """Refuse what does not exist."""
        if self.kind not in OBJECTIVES:
            raise ConfigError(
                f"Training.Losses.adv_loss_type is {self.kind!r}; allowed: {', '.join(OBJECTIVES)}"
                + did_you_mean(self.kind, OBJECTIVES)
            )
        if self.kind == "wasserstein" and self.relativistic:
            raise ConfigError(
                "Training.Losses.adv_loss_type is wasserstein, which compares real with fake scores already; set "
                "relativistic_average_d=false, or adv_loss_type to bce, hinge or lsgan"
            )

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator that gave ``real`` scores to HR and ``fake`` ones to SR."""
        real, fake = self._compared(real, fake)
        both = self._as_real(real, self.real_target) + self._as_fake(fake)
        return both if self.kind == "wasserstein" else both / 2

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Loss of the generator whose SR got the scores ``fake``.

        Args:
            fake: Scores of SR.
            real: Scores of HR, when the objective is relativistic.
        """
        if self.relativistic:
            if real is None:
                raise TypeError("the generator's loss of a relativistic objective needs the real scores as well")
            real, fake = self._compared(real, fake)
            return (self._as_real(fake, 1.0) + self._as_fake(real)) / 2
        fake = fake.float()
        if self.kind in ("hinge", "wasserstein"):
            return -fake.mean()
        loss = self._as_real(fake, 1.0)
        return loss / 2 if self.kind == "lsgan" else loss

    @torch.no_grad()
    def probabilities(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean probabilities of being real (2,), D(y) and D(G(x)).

        Of bce it is the sigmoid of the score (relativistic: of its difference from the others' mean), which the
        discriminator learns. Hinge and wasserstein learn no probability; the sigmoid of what `accuracy` compares with 0
        says on which side a score lies, and how far. The score of lsgan estimates one itself, and is clipped to 0..1;
        relativistic, it is treated as hinge's.
        """
        if self.kind == "lsgan" and not self.relativistic:
            return torch.stack([real.float().clamp(0, 1).mean(), fake.float().clamp(0, 1).mean()])
        real, fake = self._judged(real, fake)
        return torch.stack([real.sigmoid().mean(), fake.sigmoid().mean()])

    @torch.no_grad()
    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean share of the real and of the fake scores that lie on their own side, 0 to 1; 0.5 is guessing.

        The sides meet halfway between the two targets; of wasserstein, whose scores have no origin, halfway between the
        means. A score in between counts half.
        """
        real, fake = self._judged(real, fake)
        return (1 + (real.sign().mean() - fake.sign().mean()) / 2) / 2

    def _compared(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The scores that the losses look at."""
        real, fake = real.float(), fake.float()
        return (real - fake.mean(), fake - real.mean()) if self.relativistic else (real, fake)

    def _judged(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The scores, moved so that real and fake meet at 0."""
        real, fake = self._compared(real, fake)
        if self.kind == "wasserstein":
            middle = (real.mean() + fake.mean()) / 2
            return real - middle, fake - middle
        if self.kind == "lsgan" and not self.relativistic:
            return real - 0.5, fake - 0.5
        return real, fake

    def _as_real(self, scores: Tensor, target: float) -> Tensor:
        """Mean loss of scores that should be those of real images."""
        match self.kind:
            case "bce":
                return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))
            case "hinge":
                return F.relu(1 - scores).mean()
            case "lsgan":
                return (scores - target).square().mean()
        return -scores.mean()

    def _as_fake(self, scores: Tensor) -> Tensor:
        """Mean loss of scores that should be those of fake images."""
        match self.kind:
            case "bce":
                return F.softplus(scores).mean()
            case "hinge":
                return F.relu(1 + scores).mean()
            case "lsgan":
                return (scores + 1 if self.relativistic else scores).square().mean()
        return scores.mean()
