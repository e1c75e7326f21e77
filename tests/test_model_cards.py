"""A shipped model's card, its measured figures and the list of its training data say what its weights say."""

from dataclasses import replace

import pytest
import yaml

from benchmarks.model_card import ROOT, card
from geosr.models import WeightsFile, shipped_models
from geosr.models.measured import measured

SHIPPED = shipped_models()
CARDS = ROOT / "docs" / "models"
WRITE = "run `make models-report`"


def of_all(function):
    return pytest.mark.parametrize("weights", SHIPPED, ids=lambda weights: weights.spec.name)(function)


def changed(weights, **facts):
    """The weights file as it would be if it said something else."""
    return WeightsFile(weights.path, replace(weights.spec, **facts))


def test_every_card_is_of_a_shipped_model():
    assert {path.stem for path in CARDS.glob("*.md")} == {weights.spec.name for weights in SHIPPED}, WRITE


@of_all
def test_a_card_says_what_the_weights_say(weights):
    found = measured(weights)
    assert found is not None, f"{weights.spec.name}.json is missing, or of other weights; {WRITE}"
    written = (CARDS / f"{weights.spec.name}.md").read_text("utf-8")
    assert written == card(weights, found), WRITE
    provenance = weights.spec.provenance
    others = (
        changed(weights, architecture="other"),
        changed(weights, halo=99),
        changed(weights, provenance=provenance | {"config": provenance["config"] | {"Model": {"name": "other"}}}),
        changed(weights, provenance=provenance | {"step": 1}),
    )
    for other in others:
        assert written != card(other, found)


@of_all
def test_the_data_of_a_card_are_those_of_the_weights(weights):
    scenes = weights.spec.provenance["scenes"]
    told = [(one["path"], one["for"]) for one in measured(weights)["data"]]
    assert told == [(path, "training") for path in scenes["train"]] + [(path, "validation") for path in scenes["val"]]
    assert not {path for path, _ in told} & set(measured(weights)["figures"]) - set(scenes["val"])
    catalogue = yaml.safe_load((ROOT / "data_catalog" / "training_scenes.yaml").read_text("utf-8"))
    assert catalogue[weights.spec.name] == measured(weights)["data"], WRITE


@of_all
def test_the_pictures_of_a_card_are_there(weights):
    for name in measured(weights)["pictures"]:
        assert (CARDS / name).is_file(), WRITE
