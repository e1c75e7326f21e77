"""How a sensor of lower resolution would have seen an image: blur by its point-spread function, then sampling."""

from geosr.degrade.psf import PSF, degrade

__all__ = ["PSF", "degrade"]
