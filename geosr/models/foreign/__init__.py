"""Weights that others trained, as models of geosr: opensr-srgan, Real-ESRGAN and BasicSR, and what spandrel knows."""

from geosr.models.foreign.importer import Imported, import_model

__all__ = ["Imported", "import_model"]
