"""Quality figures of an SR image against an HR image, for valid pixels only."""

from geosr.metrics.functional import psnr, sam, ssim

__all__ = ["psnr", "sam", "ssim"]
