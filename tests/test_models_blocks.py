from copy import deepcopy
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from geosr.config.schema import GeneratorSection
from geosr.models import ModelSpec
from geosr.models.blocks import Trunk, prime_factors
from geosr.models.registry import ARGUMENTS, build_network, generator_arguments


def build(architecture):
    torch.manual_seed(0)
    section = GeneratorSection(model_type=architecture, n_channels=8, n_blocks=4, growth_channels=4, reduction=2)
    return build_network(ModelSpec("m", architecture, 2, ("B02", "B03"), generator_arguments(section)))


def trunks(network):
    return [module for module in network.modules() if isinstance(module, Trunk)]


def kept_for_gradients(network, lr):
    """Bytes of the activations that the backward pass will need, and what it makes of them."""
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept = {}

    def note(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)  # of what the network draws
    with saved_tensors_hooks(note, lambda tensor: tensor):
        sr = network(lr)
    sr.square().mean().backward()
    return sum(kept.values()), sr


@pytest.mark.parametrize("architecture", ARGUMENTS)
def test_checkpointing_changes_memory_and_nothing_else(architecture):
    plain = build(architecture).train()
    saving = deepcopy(plain)
    (trunk,) = trunks(saving)
    trunk.gradient_checkpointing = True
    lr = torch.rand(2, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    more, expected = kept_for_gradients(plain, lr)
    less, sr = kept_for_gradients(saving, lr)
    assert less < 0.8 * more
    assert torch.equal(sr, expected)
    for (name, ours), theirs in zip(saving.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    for name, buffer in plain.state_dict().items():  # running means have moved once, not twice
        torch.testing.assert_close(saving.state_dict()[name], buffer, msg=name)


@pytest.mark.parametrize("architecture", ["compact", "rcab", "esrgan"])
def test_the_compiler_takes_the_whole_of_it(architecture):
    network = build(architecture).train()
    trunks(network)[0].gradient_checkpointing = True
    lr = torch.rand(2, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(lr), network(lr))


@pytest.mark.parametrize("architecture", ARGUMENTS)
def test_the_memory_layout_changes_nothing(architecture):
    network = build(architecture).eval()
    lr = torch.rand(2, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    expected = network(lr)
    network = network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        network(lr.contiguous(memory_format=torch.channels_last)), expected, atol=1e-5, rtol=1e-5
    )


def test_nothing_is_computed_twice_where_no_gradient_is_wanted():
    calls = []
    layer = nn.Conv2d(1, 1, 1)
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    trunk = Trunk(layer)
    trunk.gradient_checkpointing = True
    with torch.no_grad():
        trunk(torch.rand(1, 1, 2, 2))
    trunk.eval()(torch.rand(1, 1, 2, 2)).sum().backward()
    assert len(calls) == 2
    trunk.train()(torch.rand(1, 1, 2, 2)).sum().backward()
    assert len(calls) == 4


@pytest.mark.parametrize("segment", [1, 2, 3, 7])
def test_segments_cover_every_layer_once(segment):
    layers = [nn.Conv2d(1, 1, 1) for _ in range(5)]
    trunk = Trunk(*layers, segment=segment)
    lr = torch.rand(1, 1, 3, 3)
    expected = nn.Sequential(*layers)(lr)
    trunk.gradient_checkpointing = True
    assert torch.equal(trunk(lr), expected)


def test_layers_are_named_by_their_number():
    assert list(Trunk(nn.PReLU(), nn.PReLU(), segment=2).state_dict()) == ["0.weight", "1.weight"]


@given(st.integers(1, 10_000))
def test_stages_are_primes_that_multiply_to_the_scale(scale):
    factors = prime_factors(scale)
    assert prod(factors) == scale
    assert factors == sorted(factors)
    assert all(factor > 1 and all(factor % other for other in range(2, factor)) for factor in factors)
