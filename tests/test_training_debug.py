import pytest

from geosr.config import check, load_config
from geosr.config.load import shipped_configs
from geosr.config.schedule import Schedule
from geosr.training.debug import EVERY, STEPS, shrunk


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_a_shrunk_config_holds_and_has_all_phases_within_its_steps(name):
    config = load_config(name)
    before = config.to_dict()
    small = check(shrunk(config))
    assert config.to_dict() == before
    assert (small.Training.max_steps, small.Training.val_every) == (STEPS, EVERY)
    phases = {phase for phase, _, _ in Schedule.of(small, STEPS).phases()}
    assert phases == {phase for phase, _, _ in Schedule.of(config, config.Training.max_steps).phases()}


def test_nothing_gets_larger():
    config = load_config(
        "config_demo.yaml", ["Data.train_batch_size=1", "Generator.n_channels=4", "Data.val_patches=1"]
    )
    small = shrunk(config)
    assert small.Data.train_batch_size == 1
    assert small.Generator.n_channels == 4
    assert small.Data.val_patches == 1
