import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geosr.models import Model, ModelSpec, measure_halo
from geosr.models.residual import Residual
from geosr.models.stochastic import NoiseBlock, Stochastic
from geosr.testing import assert_model_contract, assert_tiling_exact

RGBN = ("B02", "B03", "B04", "B08")
SIZE = {"channels": 8, "blocks": 2, "noise_channels": 3, "large_kernel_size": 5}


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def fresh(*, loud=True, kind=Stochastic, **arguments):
    """A network whose noise is heard as after training."""
    torch.manual_seed(0)
    network = kind(**{"bands": 2, "scale": 2, **SIZE, **arguments}).eval()
    if loud:
        for block in network.body:
            block.modulation.weight.data.mul_(10)
    return network


@pytest.mark.parametrize(
    ("bands", "scale", "arguments", "mtf"),
    [
        (RGBN, 4, {}, 0.3),
        (("B04",), 3, {"noise_field": False, "use_icnr": False}, None),
        (("B04", "B03"), 1, {"small_kernel_size": 5, "global_skip": False}, None),
        (("B04", "B03"), 2, {"noise_channels": 1, "large_kernel_size": 3}, None),
    ],
)
def test_it_keeps_the_contract_of_a_model(bands, scale, arguments, mtf):
    normal = {"mean": [0.2] * len(bands), "std": [0.06] * len(bands)}
    assert_model_contract(ModelSpec("test", "stochastic", scale, bands, SIZE | normal | arguments, consistency_mtf=mtf))


def test_a_block_is_the_paper_s_formula():
    torch.manual_seed(0)
    block = NoiseBlock(4, kernel=3, noise_channels=3, res_scale=0.3)
    features, noise = random_image(2, 4, 6, 5), random_image(2, 3, 6, 5, seed=1)
    weights = {name: value.detach().double().numpy() for name, value in block.named_parameters()}

    def dense(values, name):
        return np.einsum("oi,biyx->boyx", weights[f"{name}.weight"][..., 0, 0], values) + weights[
            f"{name}.bias"
        ].reshape(1, -1, 1, 1)

    def convolved(values, name):
        return F.conv2d(
            torch.from_numpy(values),
            *(torch.from_numpy(weights[f"{name}.{kind}"]) for kind in ("weight", "bias")),
            padding=1,
        ).numpy()

    style = dense(noise.double().numpy(), "style")
    both = dense(style / (1 + np.exp(-style)), "modulation")
    inner = convolved(features.double().numpy(), "first") * (1 + both[:, :4]) + both[:, 4:]
    inner = np.where(inner > 0, inner, weights["act.weight"] * inner)
    expected = features.double().numpy() + 0.3 * convolved(inner, "last")
    np.testing.assert_allclose(block(features, noise).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("noise_field", [True, False])
def test_a_vector_is_a_field_that_is_the_same_everywhere(noise_field):
    network, lr, vector = fresh(noise_field=noise_field), random_image(2, 2, 9, 8), random_image(2, 3, 1, 1)
    torch.testing.assert_close(network(lr, vector), network(lr, vector.expand(-1, -1, 9, 8)), atol=1e-6, rtol=0)


def test_without_noise_it_is_the_residual_network_at_first():
    network, lr = fresh(), random_image(1, 2, 9, 8)
    plain = Residual(bands=2, scale=2, block="res", channels=8, blocks=2, large_kernel_size=5)
    names = {"first": "body.0", "act": "body.1", "last": "body.2"}
    state = {}
    for name, value in network.state_dict().items():
        part = name.split(".")
        if part[0] == "body" and part[2] in names:
            name = ".".join([*part[:2], names[part[2]], part[3]])
        if "style" not in name and "modulation" not in name:
            state[name] = value
    plain.load_state_dict(state)
    torch.testing.assert_close(network(lr), plain(lr), atol=1e-6, rtol=0)


def test_training_draws_and_evaluation_does_not():
    network, lr = fresh(), random_image(2, 2, 9, 8)
    torch.manual_seed(3)
    quiet = [network(lr) for _ in range(2)]
    assert torch.equal(*quiet)
    torch.testing.assert_close(quiet[0], network(lr, torch.zeros(2, 3, 9, 8)), atol=1e-6, rtol=0)
    network.train()
    torch.manual_seed(3)
    drawn = [network(lr) for _ in range(2)]
    assert not torch.equal(*drawn)
    torch.manual_seed(3)
    assert torch.equal(network(lr), drawn[0])
    assert not torch.equal(*network(lr[:1].expand(2, -1, -1, -1)))  # each image of a batch has noise of its own


@pytest.mark.parametrize("noise_field", [True, False])
def test_training_draws_for_each_pixel_or_for_the_image(noise_field, monkeypatch):
    shapes = []
    draw = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, **kind: shapes.append(shape) or draw(*shape, **kind))
    fresh(noise_field=noise_field).train()(random_image(2, 2, 9, 8))
    assert shapes == [(2, 3, 9, 8) if noise_field else (2, 3, 1, 1)]


def test_gradients_are_the_same_when_features_are_computed_again():
    gradients = []
    for again in (False, True):
        network = fresh().train()
        network.body.gradient_checkpointing = again
        torch.manual_seed(5)
        network(random_image(2, 2, 9, 8)).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("noise_field", [True, False])
def test_tiles_do_not_show_in_a_member(noise_field):
    model = Model(ModelSpec("m", "stochastic", 2, ("B02", "B03")), fresh(noise_field=noise_field)).eval()
    assert_tiling_exact(model, seed=8)


def test_a_member_whose_noise_belongs_to_the_tile_is_found():
    class Local(Stochastic):
        def noise(self, seed, origins, **size):
            return super().noise(seed, torch.zeros_like(origins), **size)

    with pytest.raises(AssertionError, match="differs from the whole image"):
        assert_model_contract(ModelSpec("m", "stochastic", 2, ("B02", "B03")), fresh(kind=Local))


def test_noise_reaches_no_farther_than_the_image_does():
    network, lr = fresh(), random_image(1, 2, 41, 41)
    quiet, loud = torch.zeros(1, 3, 41, 41), torch.zeros(1, 3, 41, 41)
    loud[..., 20, 20] = 3
    touched = (network(lr, loud) - network(lr, quiet))[0].abs().amax(0).nonzero() // 2 - 20
    facts = ModelSpec("m", "stochastic", 2, ("B02", "B03"))
    assert 0 < touched.abs().max() <= network.reach == measure_halo(network, facts)


def test_noise_stays_small_in_a_fresh_network():
    network, lr = fresh(loud=False), random_image(1, 2, 32, 32)
    noise = network.noise(0, torch.zeros(1, 2, dtype=torch.int64), height=32, width=32)
    detail = network.resolve(lr, torch.zeros_like(noise))
    assert 0 < (network.resolve(lr, noise) - detail).std() < 0.3 * detail.std()


def test_bfloat16_is_near_float32_with_noise_too():
    network, lr = fresh(std=[0.06, 0.06]), random_image(1, 2, 24, 24)
    noise = network.noise(0, torch.zeros(1, 2, dtype=torch.int64), height=24, width=24)
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            low = network(lr, noise)
        assert low.dtype == torch.float32
        assert (low - network(lr, noise)).abs().max() < 0.02


def test_it_can_be_exported_with_the_noise_as_an_input():
    model = Model(ModelSpec("m", "stochastic", 2, ("B02", "B03")), fresh()).eval()
    lr, noise = random_image(1, 2, 12, 10), random_image(1, 3, 12, 10, seed=1)
    program = torch.export.export(copy.deepcopy(model), (lr, noise)).module()
    with torch.no_grad():
        torch.testing.assert_close(program(lr, noise), model(lr, noise), atol=1e-6, rtol=0)
