"""Feature matching: how far SR is from HR in a discriminator's eyes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def feature_matching(sr: Sequence[Tensor], hr: Sequence[Tensor]) -> Tensor:
    """Mean over features of the mean absolute difference between those of SR and of HR, in float32.

    Args:
        sr: Activations, each (batch, channel, y, x), of a discriminator that is shown SR.
        hr: Those of the same layers when it is shown HR.

    References:
        T.-C. Wang et al., "High-resolution image synthesis and semantic manipulation with conditional GANs", CVPR 2018,
        equation 4, with means over layers and scales in place of sums, so that the weight does not depend on the
        discriminator's depth.
    """
    distances = [(ours.float() - theirs.float()).abs().mean() for ours, theirs in zip(sr, hr, strict=True)]
    return torch.stack(distances).mean()
