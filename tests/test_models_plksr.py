import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import nn

from geosr.errors import ModelError
from geosr.models import Model, ModelSpec, measure_halo
from geosr.models.plksr import PLKSR, PartialLargeKernelBlock
from geosr.testing import assert_model_contract

RGB = ("B04", "B03", "B02")


@pytest.mark.parametrize(
    ("bands", "scale", "arguments", "mtf"),
    [
        (("B02", "B03", "B04", "B08"), 2, {}, 0.3),
        (("B04",), 3, {"global_skip": False}, None),
        (("B04", "B03"), 1, {"kernel": 5, "blocks": 2}, None),
        (("B04",), 8, {"channels": 3, "kernel": 1}, 0.3),
    ],
)
def test_it_keeps_the_contract_of_a_model(bands, scale, arguments, mtf):
    size = {"channels": 8, "blocks": 1, "kernel": 9}
    normal = {"mean": [0.2] * len(bands), "std": [0.06] * len(bands)}
    assert_model_contract(ModelSpec("test", "plksr", scale, bands, size | normal | arguments, consistency_mtf=mtf))


@pytest.mark.parametrize(("blocks", "kernel"), [(0, 17), (1, 17), (2, 5)])
def test_reach_is_what_is_measured(blocks, kernel):
    network = PLKSR(bands=1, scale=2, channels=4, blocks=blocks, kernel=kernel)
    assert measure_halo(network, ModelSpec("m", "plksr", 2, ("B02",))) == network.reach


def test_the_published_size_looks_farther_than_a_tile():
    spec = ModelSpec("m", "plksr", 2, ("B02",), {"channels": 4, "blocks": 28, "kernel": 17})
    assert Model(spec).spec.tiling == "approximate"


def test_a_block_is_what_the_paper_says():
    """Each step computed with SciPy, channel by channel."""
    torch.manual_seed(0)
    block = PartialLargeKernelBlock(4, kernel=5, split=1).double()
    features = torch.rand(1, 4, 9, 8, dtype=torch.float64)

    def convolved(image, layer):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        return np.stack(
            [sum(correlate(i, k, mode="same") for i, k in zip(image, w, strict=True)) + b
             for w, b in zip(weight, bias, strict=True)]
        )  # fmt: skip

    image = features[0].numpy()
    wide = convolved(image, block.widen)
    gelu = wide * np.vectorize(lambda x: 0.5 * (1 + torch.erf(torch.tensor(x / 2**0.5)).item()))(wide)
    local = convolved(gelu, block.narrow)
    mixed = np.concatenate([convolved(local[:1], block.large), local[1:]])
    attended = mixed / (1 + np.exp(-convolved(mixed, block.attention)))
    expected = image + convolved(attended, block.refine)
    np.testing.assert_allclose(block(features)[0].detach().numpy(), expected, atol=1e-12)


def test_an_even_kernel_is_refused():
    with pytest.raises(ModelError, match="kernels of 16 pixels: their side must be odd"):
        PLKSR(bands=1, scale=2, kernel=16)


@pytest.mark.interop
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_it_is_spandrel_s_plksr_on_another_base(scale):
    plksr = pytest.importorskip("spandrel.architectures.PLKSR")
    theirs = plksr.PLKSR(dim=16, n_blocks=2, upscaling_factor=scale, ccm_type="DCCM", kernel_size=17).eval()
    ours = PLKSR(bands=3, scale=scale, channels=16, blocks=2, kernel=17, global_skip=False).eval()
    convolutions = [layer for layer in theirs.modules() if isinstance(layer, nn.Conv2d)]
    for layer, given in zip(
        (layer for layer in ours.modules() if isinstance(layer, nn.Conv2d)), convolutions, strict=True
    ):
        layer.load_state_dict(given.state_dict())
    lr = torch.rand(2, 3, 11, 20)
    nearest = lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    with torch.inference_mode():
        torch.testing.assert_close(ours(lr) + nearest, theirs(lr.clone()), atol=1e-5, rtol=0)
