"""The ``geosr`` command. Every subcommand delegates; heavy imports wait until one runs."""

from geosr.cli import config, models, scenes, training  # commands register with the application when they are imported
from geosr.cli.app import app, main

__all__ = ["app", "config", "main", "models", "scenes", "training"]
