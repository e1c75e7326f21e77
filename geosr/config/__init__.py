"""Training configuration: its schema and defaults, and reading it from YAML."""

from geosr.config.checks import check
from geosr.config.load import find_config, load_config
from geosr.config.schema import Config

__all__ = ["Config", "check", "find_config", "load_config"]
