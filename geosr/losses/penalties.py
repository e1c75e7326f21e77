"""Penalties on a discriminator's gradient. Both are differentiable: they need a network that can be derived twice.

A discriminator that looks at several scales is penalised at each, for the gradient of that scale's score by the image
itself; the penalty is the mean over the scales.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Critic = Callable[[Tensor], Sequence[Tensor]]
"""From images (batch, band, y, x) to their logits (batch, ...), a tensor for each scale."""


def r1_penalty(critic: Critic, image: Tensor) -> Tensor:
    """Half the mean over images of the squared norm of the score's gradient, in float32; its weight is gamma.

    An image's score is the sum of its logits, as in opensr-srgan: a discriminator with many scores an image needs a
    smaller weight.

    Args:
        critic: The discriminator.
        image: Real images, as the discriminator sees them.

    References:
        L. Mescheder et al., "Which training methods for GANs do actually converge?", ICML 2018, equation 9.
    """
    gradients = _gradients(critic, image, lambda scores: scores.sum())
    return torch.stack([gradient.square().sum() / (2 * len(image)) for gradient in gradients]).mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """Mean over images of ``(norm of the score's gradient - 1)^2`` between real and fake ones, in float32.

    An image's score is the mean of its logits, which is what the Wasserstein objective compares.

    Args:
        critic: The discriminator.
        real: Real images, as the discriminator sees them.
        fake: As many fake ones.
        generator: Where between the two each gradient is taken is drawn from here; on the CPU, wherever the images are.

    References:
        I. Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017, equation 3.
    """
    share = torch.rand(len(real), 1, 1, 1, generator=generator).to(real.device)
    between = torch.lerp(fake.detach().float(), real.detach().float(), share)
    gradients = _gradients(critic, between, lambda scores: scores.reshape(len(real), -1).mean(1).sum())
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    return (norms - 1).square().mean()


def _gradients(critic: Critic, image: Tensor, total: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Gradient (batch, band, y, x) of ``total`` of each scale's logits, itself with a gradient to the weights."""
    with torch.autocast(image.device.type, enabled=False):
        image = image.detach().float().requires_grad_(True)
        totals = [total(scores.float()) for scores in critic(image)]
        return [torch.autograd.grad(one, image, create_graph=True)[0] for one in totals]
