"""Penalties on a discriminator's gradient. Both are differentiable: they need a network that can be derived twice."""

import torch
from torch import Tensor, nn


def r1_penalty(discriminator: nn.Module, image: Tensor) -> Tensor:
    """Half the mean over images of the squared norm of the score's gradient, in float32; its weight is gamma.

    An image's score is the sum of its logits, as in opensr-srgan: a discriminator with many scores an image needs a
    smaller weight.

    Args:
        discriminator: From (batch, band, y, x) to logits.
        image: Real images, as the discriminator sees them.

    References:
        L. Mescheder et al., "Which training methods for GANs do actually converge?", ICML 2018, equation 9.
    """
    gradient = _gradient(discriminator, image, mean=False)
    return gradient.square().sum() / (2 * len(image))


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """Mean over images of ``(norm of the score's gradient - 1)^2`` between real and fake ones, in float32.

    An image's score is the mean of its logits, which is what the Wasserstein objective compares.

    Args:
        discriminator: From (batch, band, y, x) to logits.
        real: Real images, as the discriminator sees them.
        fake: As many fake ones.
        generator: Where between the two each gradient is taken is drawn from here; on the CPU, wherever the images are.

    References:
        I. Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017, equation 3.
    """
    share = torch.rand(len(real), 1, 1, 1, generator=generator).to(real.device)
    gradient = _gradient(discriminator, torch.lerp(fake.detach().float(), real.detach().float(), share), mean=True)
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square().mean()


def _gradient(discriminator: nn.Module, image: Tensor, *, mean: bool) -> Tensor:
    """Gradient (batch, band, y, x) of each image's score, itself with a gradient to the discriminator's weights."""
    with torch.autocast(image.device.type, enabled=False):
        image = image.detach().float().requires_grad_(True)
        scores = discriminator(image).float().reshape(len(image), -1)
        total = scores.mean(1).sum() if mean else scores.sum()
        (gradient,) = torch.autograd.grad(total, image, create_graph=True)
    return gradient
