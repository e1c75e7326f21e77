"""The words that settings choose from: the one list of each, which checks and builders share."""

GENERATORS = ("compact", "srresnet", "res", "rcab", "rrdb", "lka", "esrgan", "stochastic", "swinir")
"""Architectures that can be trained; keys of ``geosr.models.registry.ARCHITECTURES``."""
UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect")
"""Ways from features to SR in swinir; keys of ``geosr.models.swinir.UPSAMPLERS``."""
DISCRIMINATORS = ("srgan", "patchgan", "esrgan", "unet_sn")
"""Networks that they can be trained against."""
NORMS = ("none", "batch", "instance")
"""Normalisations of a discriminator."""
OBJECTIVES = ("bce", "hinge", "lsgan", "wasserstein")
"""What the two want of the discriminator's scores."""
CONTENT_LOSSES = ("l1", "sam", "tv", "perceptual")
"""Losses of SR and HR; each has a weight in ``Training.Losses``."""
VGG_LAYERS = tuple(
    f"conv{block}_{layer}" for block, layers in enumerate((2, 2, 4, 4, 4), 1) for layer in range(1, layers + 1)
)
"""Convolutions of VGG19."""
SCHEDULES = ("plateau", "cosine", "multistep", "constant")
"""How learning rates change after their warm-up."""
FIGURES = ("l1", "sam", "perceptual", "tv", "psnr", "ssim", "psnr_gain", "consistency")
"""What a validation says about the generator, under ``val_metrics/``."""
HIGHER_IS_BETTER = ("psnr", "ssim", "psnr_gain", "D(y)_prob")
"""Figures of which more is better; of the others, less."""
