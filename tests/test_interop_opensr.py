"""Weights of opensr-srgan give in geosr what they give there; run by ``make test-interop``."""

import pytest
import torch
from torch import nn

from geosr.models import load_model, save_model
from geosr.models.foreign import import_model
from geosr.models.foreign.opensr import NORMALISATIONS

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("default"),  # the other packages have theirs
]

GENERATORS = {
    "standard": {"model_type": "SRResNet", "block_type": "standard"},
    "res": {"model_type": "SRResNet", "block_type": "res"},
    "rcab": {"model_type": "SRResNet", "block_type": "rcab"},
    "rrdb": {"model_type": "SRResNet", "block_type": "rrdb"},
    "lka": {"model_type": "SRResNet", "block_type": "lka"},
    "esrgan": {"model_type": "esrgan", "growth_channels": 8, "res_scale": 0.4},
}


STOCHASTIC = {"model_type": "stochastic_gan", "noise_dim": 24, "res_scale": 0.4, "block_type": None}


def configuration(generator, *, bands=4, scale=4, average=True, normalization="normalise_10k", **changes):
    size = {"n_channels": 32, "n_blocks": 3, "large_kernel_size": 9, "small_kernel_size": 3, "scaling_factor": scale}
    return {
        "Model": {"in_bands": bands},
        "Data": {"normalization": normalization},
        "Generator": size | GENERATORS.get(generator, {}) | changes,
        "Training": {"EMA": {"enabled": average, "decay": 0.9}, "Losses": {}},
    }


def peer(config, *, updates=2):
    """Their Lightning module with random weights and statistics, whose averages are other weights."""
    from opensr_srgan.model.SRGAN import SRGAN_model

    torch.manual_seed(0)
    model = SRGAN_model(config=config, mode="eval").eval()
    randomise(model.generator, bands=config["Model"]["in_bands"])
    model.initialize_ema()
    for _ in range(updates if model.ema is not None else 0):
        model.ema.update(model.generator)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.add_(0.1 * parameter.std(correction=0) * torch.randn_like(parameter))
    return model


@torch.no_grad()
def randomise(network, *, bands):
    """Weights that keep the size of what goes through them, so that every one of them is seen in the output."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="leaky_relu")
            nn.init.normal_(layer.bias, std=0.1)
        elif isinstance(layer, nn.PReLU):
            nn.init.uniform_(layer.weight, 0.1, 0.4)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, std=0.1)
            layer.running_mean.normal_(std=0.2)
            layer.running_var.uniform_(0.5, 2.0)
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][-1]
    outputs = []
    hook = last.register_forward_hook(lambda layer, given, result: outputs.append(result))
    network(torch.rand(1, bands, 16, 16))
    hook.remove()
    last.weight.div_(outputs[0].std())  # of order 1, and a tanh behind it is not flat
    last.bias.div_(outputs[0].std())


def saved(model, folder):
    """The checkpoint that Lightning writes of their module."""
    from pytorch_lightning import Trainer

    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, default_root_dir=folder
    )
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@torch.inference_mode()
def theirs(model, image, *others):
    """What their generator makes of normalised input, with the averaged weights where there are some."""
    if model.ema is None:
        return model.generator(image, *others)
    with model.ema.average_parameters(model.generator):
        return model.generator(image, *others)


@torch.inference_mode()
def ours(imported, lr, folder):
    """What geosr makes of reflectance, from the file that it writes."""
    path = save_model(imported.model, folder / "model.safetensors").path
    return load_model(path)(lr)


def assert_same(sr, expected):
    """Equal to 1e-5, where outputs are of order 1."""
    assert 0.2 < float(expected.std()) < 5, f"outputs of {float(expected.std()):.2g} would make 1e-5 say little"
    torch.testing.assert_close(sr, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("generator", GENERATORS)
def test_a_generator_gives_what_it_gives_there(generator, scale, tmp_path):
    config = configuration(generator, scale=scale)
    model = peer(config)
    imported = import_model(saved(model, tmp_path), config=config)
    lr = torch.rand(2, 4, 13, 17)
    expected = theirs(model, lr)
    assert imported.averaged
    with torch.inference_mode():
        assert (expected - model.generator(lr)).abs().max() > 1e-2  # the averaged weights are others
    assert imported.model.spec.scale == scale
    assert imported.model.spec.bands == ("B04", "B03", "B02", "B08")
    assert_same(ours(imported, lr, tmp_path), expected)


@pytest.mark.parametrize("generator", GENERATORS)
def test_kernels_widths_and_bands_are_seen_in_the_weights(generator, tmp_path):
    sizes = {"n_channels": 20, "n_blocks": 2, "large_kernel_size": 5, "small_kernel_size": 5}
    config = configuration(generator, bands=6, scale=2, average=False, **sizes)
    model = peer(config)
    imported = import_model(saved(model, tmp_path), config=config)
    assert not imported.averaged
    lr = torch.rand(1, 6, 12, 9)
    assert_same(ours(imported, lr, tmp_path), theirs(model, lr))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_noise_of_a_stochastic_generator_does_what_it_does_there(scale, tmp_path):
    config = configuration("stochastic", scale=scale, **STOCHASTIC)
    model = peer(config)
    imported = import_model(saved(model, tmp_path), config=config)
    loaded = load_model(save_model(imported.model, tmp_path / "model.safetensors").path)
    lr, noise = torch.rand(2, 4, 13, 17), torch.randn(2, 24)
    expected = theirs(model, lr, noise)
    with torch.inference_mode():
        sr = loaded(lr, noise[..., None, None])
        assert (sr - loaded(lr, -noise[..., None, None])).abs().max() > 1e-2  # noise matters
    assert_same(sr, expected)


def test_a_scale_of_1_has_no_enlargement(tmp_path):
    config = configuration("esrgan", scale=1, average=False)
    model = peer(config)
    imported = import_model(saved(model, tmp_path), config=config)
    lr = torch.rand(1, 4, 12, 9)
    assert_same(ours(imported, lr, tmp_path), theirs(model, lr))


def test_averages_that_never_began_are_left_alone(tmp_path):
    config = configuration("res", scale=2)
    model = peer(config, updates=0)
    imported = import_model(saved(model, tmp_path), config=config)
    assert not imported.averaged
    assert any("never updated" in note for note in imported.notes)
    lr = torch.rand(1, 4, 12, 9)
    with torch.inference_mode():
        expected = model.generator(lr)
    assert_same(ours(imported, lr, tmp_path), expected)


def test_a_bare_state_dictionary_is_read_too(tmp_path):
    model = peer(configuration("lka", scale=2, average=False))
    torch.save(model.generator.state_dict(), tmp_path / "weights.pt")
    imported = import_model(tmp_path / "weights.pt", white=1.0)
    lr = torch.rand(1, 4, 12, 9)
    assert_same(ours(imported, lr, tmp_path), theirs(model, lr))


@pytest.mark.parametrize("normalization", NORMALISATIONS)
def test_reflectance_is_normalised_as_there(normalization, tmp_path):
    config = configuration("res", scale=2, normalization=normalization, average=False)
    model = peer(config)
    imported = import_model(saved(model, tmp_path), config=config)
    lr = 0.05 + 0.2 * torch.rand(1, 4, 12, 9)
    unit = 10_000 if "10k" in normalization else 1  # theirs takes digital numbers there
    normalised = model.normalizer.normalize(lr * unit)
    with torch.inference_mode():
        sr = model.generator(normalised)
    # Theirs cuts off what lies outside of 0 to 1, which its own output here does: the inverse is written out.
    low, high = (model.normalizer.normalize(torch.tensor(value * unit)) for value in (0.1, 0.2))
    expected = 0.1 + 0.1 * (sr - low) / (high - low)
    torch.testing.assert_close(ours(imported, lr, tmp_path), expected, atol=1e-5, rtol=1e-5)
