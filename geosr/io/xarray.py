"""xarray: what a DataArray or Dataset says of itself, in geosr's words, and new pixels in its place."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from geosr.errors import BandError, GridError, RadiometryError, UsageError, did_you_mean
from geosr.io.claims import Claims, shared_encoding
from geosr.io.plausibility import Plausibility
from geosr.io.source import StoredBand
from geosr.io.xarray_bands import band_dim, band_name, place_in_lists
from geosr.io.xarray_grid import attributes, coordinates, geobox_of, spatial_dims, unchunked
from geosr.io.xarray_units import ENCODING_WORDS, SCALING, State, Units, decoded_units, stored_band, units_of
from geosr.sensors import canonical_band, canonical_name

_SAMPLE_SIDE = 512  # pixels along each side of a sample of an image in memory


@dataclass(frozen=True)
class _Layer:
    """One band: where it is in the object."""

    variable: Hashable
    """The array that it is in: a variable of the Dataset, or None for the DataArray itself."""
    index: int | None
    """Its place along the band dimension, or None where there is no such dimension."""


@dataclass(frozen=True, eq=False)
class Cube:
    """An xarray object as an image of named bands; :func:`describe` makes one, :meth:`select` one of fewer bands."""

    obj: xr.DataArray | xr.Dataset
    name: str
    """What messages call it."""
    bands: tuple[str, ...]
    """Canonical names where they are known, else as they came, else ``band1``, ``band2`` ..."""
    named: bool
    """Whether `bands` comes from the object or the user, not from counting."""
    layers: tuple[_Layer, ...]
    claims: Claims
    naming = 'bands=["B02", "B03", "B04", "B08"]'

    def select(self, names: Sequence[str]) -> Cube:
        """The same object, of which only some bands count, in this order.

        Raises:
            BandError: It has no such band.
            GridError: They do not lie on one grid.
        """
        chosen = self._subset(self.places(names))
        chosen._require_one_grid()
        return chosen

    def places(self, names: Sequence[str]) -> list[int]:
        """Where in `bands` the named ones are; aliases such as ``red`` or ``B4`` work.

        Raises:
            BandError: It has no such band.
        """
        places = []
        for name in names:
            wanted = name if name in self.bands else canonical_name(name)
            if wanted not in self.bands:
                raise BandError(
                    f"band {name!r} is not in {self.name} ({' '.join(self.bands)})"
                    + (did_you_mean(name, self.bands) or ("" if self.named else f"; name its bands: {self.naming}"))
                )
            places.append(self.bands.index(wanted))
        return places

    def _subset(self, places: Sequence[int]) -> Cube:
        bands = tuple(self.bands[place] for place in places)
        return replace(self, bands=bands, layers=tuple(self.layers[place] for place in places))

    @property
    def known(self) -> Cube:
        """The bands of a sensor that geosr knows; all, where there are none of them."""
        known = [place for place, band in enumerate(self.bands) if canonical_band(band)]
        return self._subset(known) if known else self

    def _require_one_grid(self) -> None:
        variables = {layer.variable for layer in self.layers}
        if len(variables) > 1 and any(layer.index is not None for layer in self.layers):
            told = " ".join(sorted(map(str, variables)))
            raise BandError(
                f"bands of {self.name} lie in several variables with a dimension of bands ({told}); choose one of them"
            )
        grids: dict[tuple[Any, ...], list[str]] = {}
        for band, layer in zip(self.bands, self.layers, strict=True):
            array = self.array(layer)
            rest = set(array.dims) - {band_dim(array)}
            grids.setdefault(tuple(sorted((str(dim), array.sizes[dim]) for dim in rest)), []).append(band)
        if len(grids) > 1:
            told = "; ".join(
                f"{' '.join(bands)}: {', '.join(f'{dim} {n}' for dim, n in grid)}" for grid, bands in grids.items()
            )
            raise GridError(f"bands of {self.name} lie on different grids ({told}); bring them to one first")

    def array(self, layer: _Layer) -> xr.DataArray:
        """The array that a layer is in."""
        return self.obj if isinstance(self.obj, xr.DataArray) else self.obj[layer.variable]

    @property
    def first(self) -> xr.DataArray:
        """The array of the first band."""
        return self.array(self.layers[0])

    @cached_property
    def dims(self) -> tuple[str, str]:
        """Names of rows and columns."""
        dims = spatial_dims(self.first.dims)
        assert dims is not None  # describe has looked
        return dims

    @cached_property
    def geobox(self) -> GeoBox:
        """The grid of the first band.

        Raises:
            GridError: It lies on no regular grid.
        """
        return geobox_of(self.first, self.dims, name=self.name)

    @property
    def dtype(self) -> str:
        """The type of the values."""
        return np.result_type(*(self.array(layer).dtype for layer in self.layers)).name

    @property
    def lazy(self) -> bool:
        """Whether the values are yet to be computed."""
        return any(self.array(layer).chunks is not None for layer in self.layers)

    @cached_property
    def units(self) -> Units:
        """What the values of the bands are.

        Raises:
            RadiometryError: Neither the object nor the user says it, or the bands differ.
        """
        told = [self._stored_band(layer) for layer in self.layers]
        if self.claims.scale == 1 and all(state == "raw" and band.dtype.startswith("float") for band, state in told):
            # Floats may be reflectance beside attributes that arithmetic has kept; the values are checked.
            told = [(replace(band, scale=None, offset=None), state) for band, state in told]
        known = [self.claims.explain(band, name=self.name) for band, _ in told]
        states = {state for _, state in told}
        dtypes = {band.dtype for band in known}
        if len(states) > 1 or len(dtypes) > 1:
            raise RadiometryError(
                f"bands of {self.name} are stored differently ({' '.join(sorted(states | dtypes))}); open them alike"
            )
        (state,), (dtype,) = states, dtypes
        said = {
            fact: one.source if (one := getattr(known[0], fact)) else "nothing"
            for fact in ("scale", "offset", "nodata")
        }
        encodings = {str((band.scale, band.offset, band.nodata)) for band in known}
        if state == "decoded" and len(encodings) > 1 and not any(band.saturated for band in known):
            return decoded_units(self.dtype, said)
        values = shared_encoding(known, name=self.name, names=self.bands)
        floats = np.dtype(self.dtype).kind == "f"
        if values["scale"] is None and not (floats and np.dtype(dtype).kind == "f"):
            raise RadiometryError(self.claims.silence(self.name, self.dtype, "values", nodata=known[0].nodata))
        return units_of(values, state, dtype=self.dtype, stored=dtype, said=said)

    @property
    def plausibility(self) -> Plausibility:
        """What is asked of the values of the bands; errors as for :attr:`units`."""
        units = self.units
        return Plausibility(
            self.name, units.values, units.said, units.assumed, self.claims.stated, self.bands, self.claims
        )

    def require_plausible(self) -> None:
        """Fail where a sample of values in memory cannot be reflectance; lazy ones are checked when they are computed.

        Raises:
            RadiometryError: They cannot, or what they mean is unknown.
        """
        if self.lazy:
            return
        steps = {dim: slice(None, None, max(1, self.first.sizes[dim] // _SAMPLE_SIDE)) for dim in self.dims}
        values, check = replace(self, obj=self.obj.isel(steps)).pixels(), self.plausibility
        for place in np.ndindex(*values.shape[:-3]):
            check.require(values[place], check.radiometry.valid(values[place]), step=None)

    def _stored_band(self, layer: _Layer) -> tuple[StoredBand, State]:
        """What the object says of the encoding of one band."""
        array = self.array(layer)
        dim = band_dim(array)
        place, count = place_in_lists(array, dim, layer.index)
        return stored_band(array, layer.index, place, count)

    def pixels(self) -> Any:
        """The values of the bands, ``(..., band, y, x)``: a numpy array, or a dask array of as yet uncomputed ones."""
        planes: list[Any] = []
        arrays = {layer.variable: self.array(layer) for layer in self.layers}
        shared = next(iter(arrays.values())) if len(arrays) == 1 else None
        band = None if shared is None else band_dim(shared)
        if shared is not None and band is not None:
            data = shared.transpose(*self.leading, band, *self.dims).data
            places = [layer.index for layer in self.layers]
            return data if places == list(range(data.shape[-3])) else data[..., places, :, :]
        for layer in self.layers:
            array = arrays[layer.variable]
            band = band_dim(array)
            plane = array if band is None else array.isel({band: layer.index})
            planes.append(plane.transpose(*self.leading, *self.dims).data)
        if self.lazy:
            import dask.array as da

            return da.stack(planes, axis=-3)
        return np.stack(planes, axis=-3)

    @cached_property
    def leading(self) -> tuple[Hashable, ...]:
        """Dimensions that are neither band nor of pixels, such as time."""
        return tuple(dim for dim in self.first.dims if dim not in (*self.dims, band_dim(self.first)))

    @property
    def stacked(self) -> bool:
        """Whether the bands lie in one array, along a dimension of it, and share its attributes."""
        return self.layers[0].index is not None

    def require_stackable(self) -> None:
        """Fail where a result of more bands than were given has no dimension to lie along.

        Raises:
            UsageError: It is a DataArray without a dimension of bands.
        """
        if isinstance(self.obj, xr.DataArray) and not self.stacked:
            raise UsageError(
                f"{self.name} has no dimension for a second band beside its band; use .expand_dims('band')"
            )

    def rebuilt(
        self,
        values: Any,
        geobox: GeoBox,
        *,
        suffixes: Sequence[str] = ("",),
        words: Sequence[Mapping[str, Any] | None] = ({},),
    ) -> xr.DataArray | xr.Dataset:
        """The object with other pixels of the same bands: dimensions, names, attributes and encoding as they came.

        Args:
            values: The pixels, ``(..., band, y, x)``; the bands once for each suffix.
            geobox: Their grid.
            suffixes: What is appended to the names of each run of bands.
            words: For each run of bands, the words of CF that say how its values are encoded, where they are other
                than those of the input; None where the values are reflectance.
        """
        if isinstance(self.obj, xr.DataArray):
            return self._array(self.obj, values, geobox, self.layers, suffixes, words[0])
        count = len(self.layers)
        variables: dict[Hashable, xr.DataArray] = {}
        if self.stacked:
            (variable,) = {layer.variable for layer in self.layers}
            variables[variable] = self._array(self.first, values, geobox, self.layers, suffixes, words[0])
        else:
            for part, suffix in enumerate(suffixes):
                for place, layer in enumerate(self.layers):
                    plane = values[..., part * count + place, :, :]
                    variables[f"{layer.variable}{suffix}" if suffix else layer.variable] = self._array(
                        self.array(layer), plane, geobox, (layer,), (suffix,), words[part]
                    )
        rest = {key: one for key, one in self.obj.data_vars.items() if not spatial_dims(one.dims)}
        result = xr.Dataset(variables | rest, attrs=attributes(self.obj.attrs, geobox))
        result.encoding = unchunked(self.obj.encoding)
        return result

    def _array(
        self,
        array: xr.DataArray,
        values: Any,
        geobox: GeoBox,
        layers: Sequence[_Layer],
        suffixes: Sequence[str],
        words: Mapping[str, Any] | None,
    ) -> xr.DataArray:
        """One array with other pixels."""
        band = band_dim(array)
        dims = (*self.leading, *(() if band is None else (band,)), *self.dims)
        if values.ndim > len(dims):
            values = values[..., 0, :, :]
        held = array if band is None else array.isel({band: [layer.index for layer in layers]})
        placed = coordinates(held, self.dims, geobox)
        if band is not None and len(suffixes) > 1:
            placed = {key: one for key, one in placed.items() if band not in one.dims}
            spelt = (band_name(array, band, layer.index) for layer in layers)
            labels = [label or name for label, name in zip(spelt, self.bands, strict=True)]
            placed[band] = (band, [f"{label}{suffix}" for suffix in suffixes for label in labels])
        attrs, encoding = attributes(array.attrs, geobox), unchunked(array.encoding)
        if words is None:
            attrs, encoding = (
                {key: value for key, value in one.items() if key not in ENCODING_WORDS} for one in (attrs, encoding)
            )
        elif words:
            # Lists for all bands, and the 1 and 0 that rioxarray writes of every file, give way to what holds.
            attrs, encoding = (
                {key: value for key, value in one.items() if key not in SCALING} for one in (attrs, encoding)
            )
            held = {**attrs, **encoding}
            packing = encoding if self.units.state == "decoded" else attrs
            packing |= {key: value for key, value in words.items() if key not in held}
        attrs |= _long_name(array, band, layers, suffixes)
        result = xr.DataArray(values, placed, dims, attrs=attrs)
        result.name, result.encoding = array.name, encoding  # given no name, xarray takes that of the dask array
        return result.transpose(*array.dims)


def describe(
    obj: xr.DataArray | xr.Dataset, *, bands: Sequence[str] | None = None, claims: Claims | None = None
) -> Cube:
    """The object as an image of named bands; nothing of its pixels is read.

    Args:
        obj: A DataArray with a dimension of bands or of a single band, or a Dataset with a variable for each band, or
            with one variable that has a dimension of bands. Further dimensions, such as time, hold further images.
        bands: Names of its bands, in order, where it does not name them.
        claims: What the user says of the encoding.

    Raises:
        GridError: There are no dimensions of pixels.
        BandError: The number of names does not fit, or a band occurs twice.
    """
    name = repr(str(obj.name)) if isinstance(obj, xr.DataArray) and obj.name is not None else ""
    name = f"the {type(obj).__name__}{' ' if name else ''}{name}"
    if isinstance(obj, xr.Dataset):
        # A grid mapping that xarray read as a variable; readers look for it among the coordinates.
        obj = obj.set_coords([key for key, one in obj.data_vars.items() if not one.ndim and "crs_wkt" in one.attrs])
        arrays = {key: one for key, one in obj.data_vars.items() if spatial_dims(one.dims)}
    else:
        arrays = {None: obj} if spatial_dims(obj.dims) else {}  # type: ignore[dict-item]
    if not arrays:
        raise GridError(
            f"{name} has dimensions {', '.join(map(str, obj.dims))}; its rows and columns must be called y and x, or "
            "latitude and longitude: rename them"
        )
    layers, found = [], []
    for key, array in arrays.items():
        _require_pixels(array, name)
        dim = band_dim(array)
        for index in [None] if dim is None else range(array.sizes[dim]):
            layers.append(_Layer(key, index))
            found.append(band_name(array, dim, index))
    if bands is not None and len(bands) != len(layers):
        raise BandError(f"bands= names {len(bands)} bands ({' '.join(bands)}) and {name} has {len(layers)}")
    names = tuple(
        canonical_name(one) or one if one else f"band{place}"
        for place, one in enumerate(found if bands is None else bands, start=1)
    )
    if repeated := sorted({band for band in names if names.count(band) > 1}):
        raise BandError(f"{name} has band {' '.join(repeated)} more than once; name its bands: {Cube.naming}")
    named = bands is not None or any(found)
    return Cube(obj, name, names, named, tuple(layers), claims or Claims(form="argument"))


def _require_pixels(array: xr.DataArray, name: str) -> None:
    """Fail where a selection has left no pixel, date or band."""
    empty = [str(dim) for dim in array.dims if not array.sizes[dim]]
    if not empty:
        return
    spatial = spatial_dims(array.dims) or ("", "")
    hint = ""
    if spatial[0] in empty:
        row = spatial[0]
        hint = f": {row} mostly descends from north to south, so slice from the higher to the lower value, "
        hint += f".sel({row}=slice(north, south)), or the other way where it ascends"
    elif spatial[1] in empty:
        hint = f": slice from the lower to the higher value, .sel({spatial[1]}=slice(west, east))"
    sizes = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
    raise GridError(f"{name} is empty ({sizes}): no pixel was selected along {' and '.join(empty)}{hint}")


def _long_name(
    array: xr.DataArray, band: Hashable | None, layers: Sequence[_Layer], suffixes: Sequence[str]
) -> dict[str, Any]:
    """The ``long_name`` of other bands, where it is the name of one, or a list of those of all."""
    held = array.attrs.get("long_name")
    if isinstance(held, str) and suffixes[0]:
        return {"long_name": f"{held}{suffixes[0]}"}
    if band is None or not isinstance(held, list | tuple | np.ndarray):
        return {}
    names = [band_name(array, band, layer.index) for layer in layers]
    if len(suffixes) == 1 and (band in array.coords or not all(names)):
        return {}  # numbers of bands point into the list as it is
    return {"long_name": [f"{name}{suffix}" for suffix in suffixes for name in names]}
