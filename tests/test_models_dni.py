from dataclasses import replace

import pytest
import torch

from geosr.errors import ModelError
from geosr.models import Model, ModelSpec, blend_models

BANDS = ("B02", "B03")


def model(seed, architecture="srresnet", **facts):
    torch.manual_seed(seed)
    spec = {"arguments": {"channels": 4, "blocks": 1}, "scale": 2, "bands": BANDS} | facts
    made = Model(ModelSpec(f"m{seed}", architecture, **spec)).eval()
    for buffer in made.network.buffers():  # statistics of batch normalisation too
        if buffer.ndim == 1:
            buffer.add_(torch.rand_like(buffer))
    return made


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.7, 1.0])
def test_every_weight_and_statistic_is_mixed(weight):
    first, second = model(1), model(2)
    mixed = blend_models(first, second, weight).network.state_dict()
    theirs = second.network.state_dict()
    for name, value in first.network.state_dict().items():
        if value.is_floating_point():
            expected = (1 - weight) * value.double() + weight * theirs[name].double()
            torch.testing.assert_close(mixed[name].double(), expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("weight", "same"), [(0.0, 0), (1.0, 1)])
def test_at_the_ends_it_is_one_of_the_two_bit_by_bit(weight, same):
    pair = model(1), model(2)
    lr = torch.rand(1, 2, 6, 5)
    blended = blend_models(*pair, weight)
    assert torch.equal(blended(lr), pair[same](lr))
    for name, value in pair[same].network.state_dict().items():
        assert torch.equal(blended.network.state_dict()[name], value), name


def test_neither_of_the_two_is_changed():
    first, second = model(1), model(2)
    before = {name: value.clone() for name, value in first.network.state_dict().items()}
    blend_models(first, second, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in first.network.state_dict().items())


def test_it_says_what_it_is_made_of():
    first, second = model(1, licence="MIT"), model(2, quality={"psnr_over_bicubic": 1.0})
    spec = blend_models(first, second, 0.25).spec
    assert spec.name == "0.75 m1 + 0.25 m2"
    assert [(part["name"], part["weight"]) for part in spec.provenance["blend"]] == [("m1", 0.75), ("m2", 0.25)]
    assert spec.licence == "MIT and Apache-2.0"
    assert spec.quality == {}  # measured on neither
    assert spec.halo == first.spec.halo


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"architecture": "res"}, "their architecture differ, srresnet and res"),
        ({"arguments": {"channels": 5, "blocks": 1}}, "their arguments differ, channels 4 and channels 5"),
        ({"arguments": {"channels": 4, "blocks": 1, "tanh": True}}, "differ, tanh None and tanh True"),
        ({"scale": 3}, "their scale differ, 2 and 3"),
        ({"bands": ("B03", "B02")}, r"their bands differ, \('B02', 'B03'\) and"),
        ({"consistency_mtf": None}, "their consistency mtf differ, 0.3 and None"),
    ],
)
def test_different_networks_are_refused_with_their_difference(other, told):
    with pytest.raises(ModelError, match=f"'m1' and 'm2' cannot be blended: .*{told}"):
        blend_models(model(1), model(2, **other), 0.5)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_outside_is_refused(weight):
    with pytest.raises(ModelError, match=r"is not between 0 .* and 1"):
        blend_models(model(1), model(2), weight)


def test_facts_that_do_not_change_the_network_may_differ():
    first, second = model(1), model(2)
    second.spec = replace(second.spec, gsd=10.0, halo=60)
    assert blend_models(first, second, 0.5).spec.gsd is None
