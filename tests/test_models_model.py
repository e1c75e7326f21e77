from dataclasses import replace

import pytest
import torch
from torch import nn

from geosr.degrade import PSF, degrade
from geosr.models import Model, ModelSpec, measure_halo
from geosr.testing import assert_tiling_exact, block_model, impulse_model

BANDS = ("B02", "B03")
CONSISTENCY_REACH = 2 + 4 + 2
"""LR pixels: the blur of the residual, the inverse filter, and the blur back; ceil(3 sigma) is below 2 pixels."""


def compact(scale=2, blocks=1, mtf=0.3, **facts):
    return ModelSpec("m", "compact", scale, BANDS, {"channels": 4, "blocks": blocks}, consistency_mtf=mtf, **facts)


class Everywhere(nn.Module):
    """Every output pixel depends on every input pixel."""

    def forward(self, lr):
        return lr - lr.mean((2, 3), keepdim=True)


class Constant(nn.Module):
    """No output pixel depends on any input pixel."""

    def forward(self, lr):
        return torch.ones_like(lr) + 0 * lr


class Aside(nn.Module):
    """The output depends on the pixels 5 rows above and 3 columns to the right, which no symmetric filter does."""

    def forward(self, lr):
        return lr.roll(5, 2) + lr.roll(-3, 3)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("blocks", [0, 1, 6])
def test_halo_of_compact_is_what_its_layers_add_up_to(scale, blocks):
    convolutions = blocks + 2  # 3 x 3 each; bicubic reaches 2 pixels, never more than they do
    assert Model(compact(scale, blocks, mtf=None)).spec.halo == convolutions
    assert Model(compact(scale, blocks)).spec.halo == convolutions + CONSISTENCY_REACH


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_halo_of_bicubic_is_that_of_its_kernel(scale):
    assert Model(ModelSpec("m", "interpolation", scale, BANDS, consistency_mtf=None)).spec.halo == 2
    # The blur touches only the nearest row of its furthest LR pixel, from which bicubic reaches one pixel outwards.
    assert Model(ModelSpec("m", "interpolation", scale, BANDS)).spec.halo == 1 + CONSISTENCY_REACH


@pytest.mark.parametrize("reach", [0, 1, 7, 15, 16, 17])
def test_halo_of_an_impulse_is_its_reach(reach):
    model = impulse_model(2, reach, bands=BANDS)
    assert model.spec.halo == reach
    if reach in (1, 7):
        assert_tiling_exact(model)


@pytest.mark.parametrize("side", [1, 2, 5, 16, 17, 40])
def test_the_reach_in_blocks_is_that_of_the_pixel_in_their_corner(side):
    model = block_model(2, side, bands=BANDS)
    assert measure_halo(model, model.spec) == side - 1
    assert (model.spec.multiple_of, model.spec.halo) == (side, side if side > 1 else 0)
    if side in (2, 5):
        assert_tiling_exact(model)


def test_tiles_beside_the_blocks_of_the_image_show():
    model = block_model(1, 4, bands=BANDS)
    model.spec = replace(model.spec, multiple_of=1, halo=7)
    with pytest.raises(AssertionError, match="differs from the whole image"):
        assert_tiling_exact(model)


def test_the_halo_holds_whole_blocks():
    facts = ModelSpec("m", "means", 1, BANDS, consistency_mtf=None, halo=9)
    assert Model(facts, block_model(1, 4).network).spec.halo == 12
    facts = replace(facts, halo=None, tiling="approximate")
    assert Model(facts, block_model(1, 7).network).spec.halo == 35


def test_a_network_that_does_not_say_works_on_the_blocks_of_the_specification():
    spec = Model(ModelSpec("m", "everywhere", 1, BANDS, multiple_of=6), Everywhere()).spec
    assert (spec.multiple_of, spec.halo) == (6, 36)


def test_one_pixel_less_than_the_halo_shows():
    model = impulse_model(1, 4, bands=BANDS)
    model.spec = ModelSpec("m", "impulse", 1, BANDS, halo=3)
    with pytest.raises(AssertionError, match="differs from the whole image"):
        assert_tiling_exact(model)


def test_reach_to_one_side_counts():
    assert Model(ModelSpec("m", "aside", 1, BANDS, consistency_mtf=None), Aside()).spec.halo == 5


def test_a_model_that_looks_at_nothing_has_no_halo():
    assert Model(ModelSpec("m", "constant", 1, BANDS, consistency_mtf=None), Constant()).spec.halo == 0


def test_a_model_that_depends_on_everything_is_blended():
    facts = ModelSpec("m", "everywhere", 1, BANDS, consistency_mtf=None)
    assert measure_halo(Everywhere(), facts, largest=40) is None
    blended = Model(facts, Everywhere()).spec
    assert (blended.tiling, blended.halo) == ("approximate", 32)


@pytest.mark.parametrize(("blocks", "tiling", "halo"), [(62, "exact", 64), (63, "approximate", 32)])
def test_a_model_that_reaches_too_far_is_blended(blocks, tiling, halo):
    for mtf, further in ((None, 0), (0.3, CONSISTENCY_REACH)):
        spec = Model(compact(blocks=blocks - further, mtf=mtf)).spec
        assert (spec.tiling, spec.halo) == (tiling, halo)


@pytest.mark.parametrize(("reach", "tiling", "halo"), [(64, "exact", 64), (65, "approximate", 32)])
def test_a_network_that_does_not_say_is_measured_as_far_as_that(reach, tiling, halo):
    column_means = nn.AvgPool2d((2 * reach + 1, 1), stride=1, padding=(reach, 0))
    spec = Model(ModelSpec("m", "means", 1, BANDS[:1], consistency_mtf=None), column_means).spec
    assert (spec.tiling, spec.halo) == (tiling, halo)


@pytest.mark.parametrize("mtf", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_consistency_layer_adds_its_reach_to_the_network_s(scale, mtf):
    model = Model(compact(scale, blocks=1, mtf=mtf))
    assert measure_halo(model, model.spec) == model.spec.halo == 3 + model.consistency.reach


def test_who_wants_a_blend_gets_a_margin():
    spec = Model(compact(tiling="approximate")).spec
    assert (spec.tiling, spec.halo) == ("approximate", 32)


def test_a_halo_that_is_given_is_taken():
    assert Model(compact(halo=40)).spec.halo == 40


def test_measuring_leaves_the_model_and_the_random_numbers_as_they_were():
    model = Model(compact(halo=1)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert measure_halo(model, model.spec) == 3 + CONSISTENCY_REACH
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(parameter.grad is None and parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_consistency_layer_is_there_when_the_specification_says_so():
    lr = torch.rand(1, 2, 20, 20, generator=torch.Generator().manual_seed(0))
    psf = PSF(2, 0.2)
    off = {}
    for mtf in (None, 0.2):
        model = Model(ModelSpec("m", "interpolation", 2, BANDS, consistency_mtf=mtf))
        off[mtf] = float((degrade(model(lr), psf) - lr).abs().mean())
    assert off[0.2] < off[None] / 20


def test_parameter_names_are_those_of_trained_weights():
    assert {name.rsplit(".", 2)[0] for name, _ in Model(compact()).named_parameters()} == {"network.body"}


def test_a_model_describes_itself_in_a_line():
    parameters = 2 * 4 * 9 + 4 + 4 + 4 * 4 * 9 + 4 + 4 + 4 * 8 * 9 + 8
    assert Model(compact()).describe() == f"m (x2, B02 B03, {parameters} parameters)"
