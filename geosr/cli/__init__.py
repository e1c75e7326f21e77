"""The ``geosr`` command. Every subcommand delegates; heavy imports wait until one runs."""

import sys

try:
    from geosr.cli import (  # commands register with the application when they are imported
        config,
        evaluate,
        models,
        scenes,
        training,
    )
    from geosr.cli.app import app, main
except KeyboardInterrupt:  # an interrupt that comes before `main` ends as one that comes later
    print("interrupted; the same command continues", file=sys.stderr)
    raise SystemExit(130) from None

__all__ = ["app", "config", "evaluate", "main", "models", "scenes", "training"]
