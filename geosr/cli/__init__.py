"""The ``geosr`` command. Every subcommand delegates; heavy imports wait until one runs."""

from geosr.cli import (  # commands register with the application when they are imported
    config,
    evaluate,
    models,
    scenes,
    training,
)
from geosr.cli.app import app, main

__all__ = ["app", "config", "evaluate", "main", "models", "scenes", "training"]
