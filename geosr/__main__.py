"""``python -m geosr``: the command line, as ``geosr``."""

from geosr.cli import main

main()
