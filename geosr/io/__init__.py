"""Bytes in and out: rasters and the metadata of satellite products."""
