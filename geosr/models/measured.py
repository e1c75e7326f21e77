"""What was measured of the shipped models, and what they learned from: ``NAME.json`` beside the weights.

``make models-report`` writes it; ``geosr models show`` and the model cards show it.
"""

import json
from collections.abc import Mapping
from typing import Any

from geosr.models.weights import WeightsFile


def measured(weights: WeightsFile) -> Mapping[str, Any] | None:
    """Figures, speed and training data of a weights file; None where nobody measured just this file.

    Returns:
        ``sha256`` of the weights; ``date``, ``machine``, ``torch`` and ``geosr`` of the measurement; ``speed``;
        ``data``, a list of the scenes of training and validation; and ``figures`` by held-out scene and method.
    """
    path = weights.path.with_suffix(".json")
    if weights.path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError, OSError):  # a file of another program
        return None
    if not isinstance(found, dict) or found.get("sha256") != weights.sha256:
        return None
    return found
