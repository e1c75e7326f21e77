import pytest

from geosr.config import Config, check, load_config
from geosr.config.combinations import content_weights
from geosr.config.load import shipped_configs
from geosr.config.names import ALWAYS_VALIDATED, CONTENT_LOSSES
from geosr.errors import ConfigError

BLAME = [
    (["Training.max_steps=null"], r"Training\.max_steps and Training\.max_epochs are null"),
    (["Training.precision=16-mixed", "Training.accelerator=cpu"], r"a CPU takes 'bf16-mixed'"),
    (["Model.load_checkpoint=s2-rgbn-x2", "Model.continue_training=auto"], r"give one of them"),
    (["Training.Losses.l1_weight=0"], r"no content loss.*l1_weight charbonnier_weight .* perceptual_weight"),
    (["Training.pretrain_losses=[l1,tv]"], r"names tv, which has no weight.*Training\.Losses\.tv_weight"),
    (["Training.Losses.perceptual_weight=1", "Data.bands=[B05,B03]"], r"Data\.bands has no B04 B02.*ssl4eo"),
    (
        ["Data.bands=[red,nir]", "Training.Losses.perceptual_metric=ssl4eo", "Training.Losses.perceptual_weight=1"],
        r"ssl4eo looks at B01 .*has none of them",
    ),
    (
        ["Training.Losses.indices_weight=1", "Data.bands=[B02,B03]"],
        r"B02 B03\) has the bands of no index.*ndvi \(B08 B04",
    ),
    (["Training.Losses.band_weights={B05: 1}"], r"names 'B05', and Data\.bands has B02 B03 B04 B08; did you mean"),
    (["Data.bands=[B04,B08]", "Training.Losses.band_weights={B04: 0, B08: 0}"], r"gives every band the weight 0"),
    (["Training.Losses.adv_loss_type=wasserstein", "Training.Losses.relativistic_average_d=true"], r"wasserstein"),
    (
        ["Generator.model_type=rcab", "Generator.n_channels=8"],
        r"reduction is 16, more than Generator\.n_channels \(8\)",
    ),
    (["Generator.init_args={width: 3}"], r"no class that takes them; set Generator\.class_path"),
    (
        ["Generator.model_type=swinir", "Generator.n_channels=30"],
        r"n_channels is 30, which 4 heads of attention \(Generator\.n_heads\) cannot share; take a multiple of 4",
    ),
    (["Discriminator.n_blocks=3", "Discriminator.model_type=unet_sn"], r"unet_sn has a fixed number of layers"),
    (
        ["Training.Losses.adv_loss_beta=0", "Training.Losses.feature_matching_weight=0.1"],
        r"feature_matching_weight is 0\.1, and without adv_loss_beta there is no discriminator",
    ),
    (["Schedulers.name=multistep"], r"no milestones"),
    (["Schedulers.metric=val_metrics/perceptual"], r"Schedulers\.metric is 'val_metrics/perceptual'"),
    (["Schedulers.metric_d=val_metrics/mse"], r"metric_d is 'val_metrics/mse'.*mse_weight one"),
]
FINE = [
    ["Training.max_steps=null", "Training.max_epochs=3"],
    ["Training.precision=16-mixed"],
    ["Training.Losses.l1_weight=0", "Training.Losses.sam_weight=1"],
    ["Data.bands=[B08]", "Training.Losses.sam_weight=1"],
    ["Training.Losses.adv_loss_type=hinge", "Training.Losses.relativistic_average_d=true"],
    ["Training.Losses.perceptual_weight=1", "Schedulers.metric=val_metrics/perceptual"],
    ["Training.Losses.mse_weight=1", "Schedulers.metric=val_metrics/mse"],
    *([f"Schedulers.metric=val_metrics/{name}"] for name in ALWAYS_VALIDATED),
    ["Training.Losses.perceptual_weight=1", "Training.Losses.perceptual_metric=ssl4eo", "Data.bands=[B05,B03]"],
    ["Training.Losses.indices_weight=1", "Data.bands=[B8A,B11]"],
    ["Training.Losses.band_weights={B04: 0, B08: 2}"],
    ["Generator.model_type=res", "Generator.n_channels=8"],
    ["Generator.class_path=my.Network", "Generator.init_args={width: 3}"],
    ["Generator.model_type=swinir", "Generator.n_channels=60", "Generator.n_heads=6"],
    ["Discriminator.n_blocks=3", "Discriminator.model_type=srgan"],
    ["Discriminator.n_blocks=3", "Discriminator.model_type=multiscale"],
    ["Schedulers.name=multistep", "Schedulers.milestones=[5,9]"],
]


@pytest.fixture
def empty(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("")
    return path


@pytest.mark.parametrize(("overrides", "told"), BLAME)
def test_what_cannot_work_together_is_refused_in_one_line_that_says_what_to_change(empty, overrides, told):
    with pytest.raises(ConfigError, match=told) as error:
        load_config(empty, overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("overrides", [override for override, _ in BLAME if len(override) > 1])
def test_each_of_them_alone_is_allowed(empty, overrides):
    for override in overrides[1:]:  # the first of the pair is what the message is about
        load_config(empty, [override])


@pytest.mark.parametrize("overrides", FINE)
def test_what_can_work_together_passes(empty, overrides):
    load_config(empty, overrides)


def test_a_value_out_of_range_is_told_before_what_follows_from_it(empty):
    with pytest.raises(ConfigError, match=r"^Training\.Losses\.l1_weight is -1\.0; allowed is at least 0; 0 .* off$"):
        load_config(empty, ["Training.Losses.l1_weight=-1", "Training.max_steps=null"])


def test_every_content_loss_has_its_weight():
    losses = Config().Training.Losses
    for number, name in enumerate(CONTENT_LOSSES):
        setattr(losses, f"{name}_weight", number)
    assert content_weights(losses) == {name: number for number, name in enumerate(CONTENT_LOSSES)}


@pytest.mark.parametrize("name", shipped_configs())
def test_the_shipped_configs_go_together(name):
    config = load_config(name)
    assert check(config) is config
