import pytest
import torch
import torch.nn.functional as F

from geosr.degrade import degrade
from geosr.errors import ModelError
from geosr.models import Model, ModelSpec, load_model, save_model
from geosr.models.export import export_model
from geosr.models.guided import Guided, block_means, repeated, whole_blocks
from geosr.testing import assert_model_contract

GUIDE, COARSE = ("B02", "B08"), ("B05", "B11", "B12")
ARGUMENTS = {"channels": 6, "blocks": 1, "mean": [0.1, 0.2, 0.2, 0.3, 0.4], "std": [0.1, 0.2, 0.3, 0.1, 0.2]}


def spec(**facts):
    facts = {"arguments": ARGUMENTS, "guide": GUIDE, "guide_scale": 2, **facts}
    return ModelSpec("test", "guided", 1, (*GUIDE, *COARSE), **facts)


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("facts", [{}, {"guide_scale": 3, "consistency_mtf": None}])
def test_it_keeps_the_contract_of_a_model(facts):
    assert_model_contract(spec(**facts))


def test_its_halo_is_that_of_the_layers_in_whole_coarse_pixels():
    model = Model(spec())
    # Three convolutions reach 3 coarse pixels, the consistency layer 8 more; 2 fine pixels each, up to a block's end.
    assert (model.network.reach, model.spec.halo, model.spec.multiple_of) == (7, 24, 2)


def test_what_comes_out_degrades_to_what_was_measured():
    model, coarse = Model(spec()).eval(), image(1, 3, 20, 24)
    lr = torch.cat([image(1, 2, 40, 48, seed=1), repeated(coarse, 2)], dim=1)
    assert torch.equal(model.observed(lr), coarse)
    sr = model(lr)
    assert sr.shape == (1, 3, 40, 48)
    bicubic = F.interpolate(coarse, scale_factor=2, mode="bicubic")
    ours, theirs = ((degrade(one, model.consistency.psf) - coarse).abs().mean() for one in (sr, bicubic))
    assert ours < 0.02 * theirs


def test_without_a_residual_it_is_bicubic_of_the_coarse_pixels():
    network = Guided(bands=5, scale=1, guide=2, guide_scale=2, **ARGUMENTS)
    torch.nn.init.zeros_(network.body[-1].weight)
    coarse = image(2, 3, 6, 5)
    lr = torch.cat([image(2, 2, 12, 10, seed=1), repeated(coarse, 2)], dim=1)
    expected = F.interpolate(coarse, scale_factor=2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(network(lr), expected, atol=1e-6, rtol=0)


def test_it_is_convolutions_of_coarse_pixels_and_of_the_guides_pixels_in_them():
    network = Guided(bands=5, scale=1, guide=2, guide_scale=2, **ARGUMENTS | {"blocks": 0})
    lr = torch.cat([image(1, 2, 8, 8), repeated(image(1, 3, 4, 4, seed=1), 2)], dim=1)
    features = (lr - network.mean) / network.std
    phases = [features[:, band, row::2, column::2] for band in (0, 1) for row in (0, 1) for column in (0, 1)]
    stacked = torch.stack([*(features[:, band, ::2, ::2] for band in (2, 3, 4)), *phases], dim=1)
    first, prelu, last = network.body
    detail = F.conv2d(prelu(F.conv2d(stacked, first.weight, first.bias, padding=1)), last.weight, last.bias, padding=1)
    sr = F.interpolate(lr[:, 2:, ::2, ::2], scale_factor=2, mode="bicubic")
    for band in range(3):
        for row in (0, 1):
            for column in (0, 1):
                channel = 4 * band + 2 * row + column
                sr[:, band, row::2, column::2] += detail[:, channel] * network.std[0, 2 + band]
    torch.testing.assert_close(network(lr), sr, atol=1e-6, rtol=0)


def test_a_coarse_pixel_that_the_image_cuts_off_counts_as_whole():
    lr = image(1, 1, 3, 5)
    whole = whole_blocks(lr, 2)
    assert whole.shape == (1, 1, 4, 6)
    assert torch.equal(whole[..., :3, :5], lr)
    assert torch.equal(whole[..., 3, :5], lr[..., 2, :])
    coarse = image(1, 1, 2, 3, seed=1)
    assert torch.equal(block_means(whole_blocks(repeated(coarse, 2)[..., :3, :5], 2), 2), coarse)


def test_a_file_of_it_says_what_guides(tmp_path):
    model = Model(spec()).eval()
    loaded = load_model(save_model(model, tmp_path / "guided.safetensors").path)
    assert loaded.spec == model.spec
    assert (loaded.spec.guide, loaded.spec.outputs) == (GUIDE, COARSE)
    assert "(x2, B05 B11 B12 guided by B02 B08, " in loaded.describe()
    lr = image(1, 5, 8, 8)
    assert torch.equal(loaded(lr), model(lr))


def test_it_is_not_exported(tmp_path):
    with pytest.raises(ModelError, match=r"'test' is not exported.*geosr predict runs it"):
        export_model(Model(spec()), tmp_path / "guided.onnx", kind="onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"guide": ("B08", "B02")}, "the guide is the first of the bands"),
        ({"guide": (*GUIDE, *COARSE)}, "and others follow"),
        ({"guide_scale": 1}, "at least 2 times finer"),
        ({"guide": ()}, "without one guide_scale is 1"),
    ],
)
def test_a_guide_that_is_none_is_refused(facts, message):
    with pytest.raises(ModelError, match=message):
        spec(**facts)


def test_no_other_architecture_takes_a_guide():
    other = ModelSpec("m", "compact", 1, ("B02", "B05"), guide=("B02",), guide_scale=2)
    with pytest.raises(ModelError, match=r"'compact' makes nothing of bands that guide others \(B02\); 'guided' does"):
        Model(other)
