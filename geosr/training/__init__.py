"""Training: from a configuration to a weights file."""

from geosr.training.run import train

__all__ = ["train"]
