"""Every generator trains against every discriminator with every adversarial objective."""

import pytest
import torch

from geosr.config.names import DISCRIMINATORS, GENERATORS, OBJECTIVES
from geosr.config.schedule import Schedule
from geosr.models import Model, ModelSpec
from geosr.models.discriminators import ARGUMENTS, build_discriminator
from geosr.models.registry import generator_arguments
from geosr.training.build import Networks
from geosr.training.module import SuperResolution
from tests.training_kit import BANDS, batch_of, config_of, smooth_image

SMALL = {
    "Generator__n_channels": 12,
    "Generator__n_blocks": 1,
    "Generator__large_kernel_size": 3,
    "Generator__growth_channels": 4,
    "Generator__reduction": 4,
    "Discriminator__base_channels": 2,
    "Discriminator__linear_size": 4,
    "Discriminator__n_scales": 2,
    "Training__EMA__enabled": False,
    "Training__Losses__adv_loss_beta": 0.1,
    "Logging__every": 3,
}
"""The smallest networks, and a step more than are made from one logged value to the next."""


def train_two_steps(generator, discriminator, objective, **settings):
    """Both networks before and after two updates of each, without Lightning's trainer, which would take most time."""
    settings = {
        "Generator__model_type": generator,
        "Discriminator__model_type": discriminator,
        "Discriminator__n_blocks": 1 if "n_blocks" in ARGUMENTS[discriminator].values() else None,
        "Training__Losses__adv_loss_type": objective,
        **settings,
    }
    config = config_of(3, pretraining=0, **SMALL, **settings)
    torch.manual_seed(0)
    arguments = generator_arguments(config.Generator) | {"mean": [0.3] * len(BANDS), "std": [0.1] * len(BANDS)}
    model = Model(ModelSpec("m", generator, 2, BANDS, arguments, halo=0))
    networks = Networks(model, build_discriminator(config.Discriminator, bands=len(BANDS)))
    side = max(16, networks.discriminator.least)
    batch = batch_of(smooth_image(2, len(BANDS), side, side))
    module = SuperResolution(networks, config, Schedule.of(config, config.Training.max_steps))
    module.setup("fit")
    optimizers = module.configure_optimizers()
    module.optimizers, module.manual_backward = lambda: optimizers, torch.Tensor.backward
    before = {name: value.clone() for name, value in module.named_parameters()}
    for step in range(2):
        loss = module.training_step(batch, step)  # values that are not finite stop it
        assert loss.isfinite()
    return before, dict(module.named_parameters())


def assert_both_learned(before, after):
    """Every parameter has moved, but perhaps for a discriminator's biases.

    What is added to all scores is learned by rounding errors alone where the objective only compares them, as
    wasserstein and the relativistic ones do, and hinge within its margins.
    """
    assert all(value.isfinite().all() for value in after.values())
    still = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert not {name for name in still if not (name.startswith("adversary.") and name.endswith(".bias"))}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize("generator", GENERATORS)
def test_two_steps_move_both_networks(generator, discriminator, objective):
    assert_both_learned(*train_two_steps(generator, discriminator, objective))


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "wasserstein"])
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_a_relativistic_objective_moves_them_too(discriminator, objective):
    settings = {"Training__Losses__relativistic_average_d": True}
    assert_both_learned(*train_two_steps("compact", discriminator, objective, **settings))


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_so_does_everything_at_once(discriminator):
    losses = {"feature_matching_weight": 1.0, "r1_gamma": 1.0, "gp_weight": 1.0, "relativistic_average_d": True}
    settings = {f"Training__Losses__{name}": value for name, value in losses.items()}
    settings |= {"Discriminator__conditional": True, "Discriminator__use_spectral_norm": True}
    assert_both_learned(*train_two_steps("compact", discriminator, "hinge", **settings))
