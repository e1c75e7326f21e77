import json

from geosr.models import WeightsFile, find_weights
from geosr.models.measured import measured


def test_figures_of_other_weights_are_not_shown(tmp_path):
    weights = find_weights("s2-rgbn-x2")
    path = tmp_path / weights.path.name
    path.write_bytes(weights.path.read_bytes())
    copy = WeightsFile(path, weights.spec)
    assert measured(copy) is None
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(measured(weights)))
    assert measured(copy) == measured(weights)
    beside.write_text(json.dumps(measured(weights) | {"sha256": "0"}))
    assert measured(copy) is None
