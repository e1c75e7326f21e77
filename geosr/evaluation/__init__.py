"""How good models are on scenes, beside what needs no learning, and whether finished images are measurements."""

from geosr.evaluation.cases import Case
from geosr.evaluation.charts import calibration_chart
from geosr.evaluation.results import Evaluation, Row
from geosr.evaluation.run import evaluate, evaluate_arrays

__all__ = ["Case", "Evaluation", "Row", "calibration_chart", "evaluate", "evaluate_arrays"]
