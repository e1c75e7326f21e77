"""``python -m geosr.cli``."""

from geosr.cli import main

main()
