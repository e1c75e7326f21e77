"""Training: from a configuration to a weights file."""

from geosr.errors import extra

with extra("train", "training"):  # as the command says it
    from geosr.training.needs import measure_run
    from geosr.training.resume import settings_of
    from geosr.training.run import train

__all__ = ["measure_run", "settings_of", "train"]
