import numpy as np
import pytest
import torch
from scipy import ndimage

from geosr.degrade import usm_sharpen


def scene(side=96):
    y, x = np.mgrid[:side, :side]
    image = 0.1 + 0.2 * (x > side / 2) + 0.001 * np.sin(y)
    return torch.from_numpy(np.stack([image, image.T]))[None]


def by_scipy(band, weight, radius, threshold, white):
    """OpenCV's Gaussian of that size, the mask and the sum, one after the other."""
    side = radius if radius % 2 else radius + 1
    sigma = 0.3 * ((side - 1) * 0.5 - 1) + 0.8

    def blur(values):
        return ndimage.gaussian_filter(values, sigma, mode="mirror", radius=side // 2)

    residual = band - blur(band)
    soft = blur((np.abs(residual) * 255 / white > threshold).astype(float))
    return soft * (band + weight * residual) + (1 - soft) * band


@pytest.mark.parametrize(("weight", "radius", "threshold", "white"), [(0.5, 50, 10, 0.4), (1.0, 11, 3, 1.0)])
def test_it_is_unsharp_masking_where_there_is_detail(weight, radius, threshold, white):
    image = scene()
    sharp = usm_sharpen(image, weight=weight, radius=radius, threshold=threshold, white=white)
    for band, result in zip(image[0].numpy(), sharp[0].numpy(), strict=True):
        np.testing.assert_allclose(result, by_scipy(band, weight, radius, threshold, white), atol=1e-9)


def test_edges_overshoot_and_flat_parts_stay():
    image = scene()
    sharp = usm_sharpen(image)
    assert sharp.max() > image.max() + 0.005
    assert (sharp - image)[0, 0, :, :10].abs().max() < 1e-3
    flat = torch.full((1, 2, 32, 32), 0.3)
    torch.testing.assert_close(usm_sharpen(flat), flat)


def test_it_keeps_the_type_and_the_gradient_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert usm_sharpen(scene().half()).dtype == torch.float16
    image = scene().requires_grad_(True)
    usm_sharpen(image).sum().backward()
    assert torch.isfinite(image.grad).all()
