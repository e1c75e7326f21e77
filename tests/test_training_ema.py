import copy
import pickle

import pytest
import torch

from geosr.config.schema import EMASection
from geosr.models import Model, ModelSpec
from geosr.training.ema import EMA


def model_of(seed=0, architecture="compact", **arguments):
    torch.manual_seed(seed)
    return Model(ModelSpec("m", architecture, 2, ("B02",), {"channels": 4, "blocks": 1} | arguments, halo=5))


def moved(model, amount):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(amount)
    return model


def test_the_first_update_copies_and_later_ones_fold():
    model = model_of()
    ema = EMA(model, EMASection(decay=0.9, use_num_updates=False))
    assert not ema.is_active
    expected = None
    for step in range(4):
        moved(model, 1.0)
        ema.update(model, step=step)
        new = [parameter.detach().clone() for parameter in model.parameters()]
        expected = new if expected is None else [0.9 * a + 0.1 * b for a, b in zip(expected, new, strict=True)]
        for ours, theirs in zip(ema.model.parameters(), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    assert ema.updates == 4


def test_the_decay_starts_small():
    ema = EMA(model_of(), EMASection(decay=0.5))
    assert [ema.decay(n) for n in (1, 4, 8, 100)] == pytest.approx([2 / 11, 5 / 14, 0.5, 0.5])
    assert EMA(model_of(), EMASection(decay=0.5, use_num_updates=False)).decay(1) == 0.5


def test_running_statistics_are_averaged_and_counters_copied():
    model = model_of(architecture="srresnet")
    ema = EMA(model, EMASection(decay=0.5, use_num_updates=False))
    model.train()
    statistics = []
    for step in range(2):
        model(torch.rand(2, 1, 8, 8))
        ema.update(model, step=step)
        statistics.append({name: buffer.clone() for name, buffer in model.named_buffers()})
    for name, buffer in ema.model.named_buffers():
        first, second = (values[name] for values in statistics)
        expected = (first + second) / 2 if buffer.is_floating_point() else second
        torch.testing.assert_close(buffer, expected, msg=name)


def test_it_starts_when_it_is_told_to():
    model = model_of()
    ema = EMA(model, EMASection(update_after_step=2))
    for step in range(3):
        ema.update(moved(model, 1.0), step=step)
        assert ema.is_active == (step == 2)
    figures = ema.figures(0)
    assert figures["EMA/steps_until_activation"] == 1
    assert set(figures) == {
        f"EMA/{name}"
        for name in (
            "enabled", "decay", "update_after_step", "use_num_updates", "is_active", "steps_until_activation",
            "last_decay", "num_updates",
        )
    }  # fmt: skip


def test_it_stays_where_it_was_asked_to_be():
    assert next(EMA(model_of(), EMASection(device="cpu")).to("meta").model.parameters()).device.type == "cpu"
    assert next(EMA(model_of(), EMASection()).to("meta").model.parameters()).device.type == "meta"


def test_it_survives_its_state_a_copy_and_another_process():
    model = model_of()
    ema = EMA(model, EMASection(decay=0.7))
    for step in range(3):
        ema.update(moved(model, 0.5), step=step)
    again = EMA(model_of(1), EMASection(decay=0.7))
    again.load_state_dict(ema.state_dict())
    for other in (again, copy.deepcopy(ema), pickle.loads(pickle.dumps(ema))):
        assert other.updates == 3
        other.update(model, step=3)
        reference = copy.deepcopy(ema)
        reference.update(model, step=3)
        for ours, theirs in zip(other.model.parameters(), reference.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_nobody_waits_for_its_gradients():
    assert not any(parameter.requires_grad for parameter in EMA(model_of(), EMASection()).parameters())
