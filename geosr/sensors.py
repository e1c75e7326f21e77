"""Sensors: the names of their bands, what those bands see, and how their digital numbers encode reflectance."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from geosr.errors import BandError, RadiometryError, did_you_mean
from geosr.radiometry import Radiometry


@dataclass(frozen=True)
class Band:
    """What one band of a sensor sees."""

    name: str
    """The canonical name, such as ``B04``."""
    aliases: tuple[str, ...]
    """Other names; case, spaces, hyphens and underscores do not matter."""
    wavelength: float
    """Centre wavelength in nm."""
    bandwidth: float
    """Width of the spectral response in nm."""
    gsd: float | None = None
    """Ground sampling distance in m."""
    mtf: float | None = None
    """Modulation transfer at the Nyquist frequency of `gsd`, 0 to 1."""
    snr: float | None = None
    """Signal-to-noise ratio at the reflectance `reference`."""
    reference: float | None = None
    """Reflectance (1.0 = 100 %) that has the sensor's reference radiance under an overhead sun."""


@dataclass(frozen=True)
class Sensor:
    """A product family: its bands, and how its digital numbers (DN) encode reflectance."""

    name: str
    """The name to ask for, such as ``sentinel-2-l2a``."""
    title: str
    """One line for people."""
    bands: tuple[Band, ...]
    """Every band of the instrument, in its own order."""
    quantification: float = 1.0
    """DN per unit of reflectance."""
    nodata: int | None = None
    """The DN that marks an invalid pixel."""
    saturated: int | None = None
    """The DN that marks a saturated pixel."""
    dtype: str = "uint16"
    """The type that products are stored in."""
    add_offset: int = 0
    """The number that is added to a DN before it is divided by `quantification`, since `offset_since`."""
    offset_since: str | None = None
    """The first processing baseline with `add_offset`; None where products have no baselines."""

    @property
    def band_names(self) -> tuple[str, ...]:
        """Canonical names of all bands."""
        return tuple(band.name for band in self.bands)

    def band(self, name: str) -> Band:
        """The band with this name or alias.

        Raises:
            BandError: No band has this name.

        >>> get_sensor("sentinel-2-l2a").band("narrow nir").name
        'B8A'
        >>> get_sensor("sentinel-2-l2a").band("B13")
        Traceback (most recent call last):
        geosr.errors.BandError: band 'B13' is not in sensor 'sentinel-2-l2a' (B01 B02 ... B12); did you mean 'B12'?
        """
        for band in self.bands:
            if _key(name) in map(_key, (band.name, *band.aliases)):
                return band
        first, second, *_, last = self.band_names
        raise BandError(
            f"band {name!r} is not in sensor {self.name!r} ({first} {second} ... {last})"
            + did_you_mean(name, self.band_names)
        )

    def radiometry(self, baseline: str | None = None) -> Radiometry:
        """How DN of this sensor's products encode reflectance.

        Args:
            baseline: Processing baseline such as ``04.00``, ``5.9`` or ``N0509``, for sensors that have baselines.

        Raises:
            RadiometryError: The sensor needs a baseline and none, or none that can be read, was given.

        >>> get_sensor("sentinel-2-l2a").radiometry("05.09").offset
        -0.1
        >>> get_sensor("sentinel-2-l2a").radiometry("02.12").offset
        0.0
        """
        offset = 0.0
        if self.offset_since is not None:
            if baseline is None:
                raise RadiometryError(
                    f"{self.name} changed its encoding at processing baseline {self.offset_since}; give --baseline "
                    "(the Nxxxx in the product name: S2A_MSIL2A_20230625T234621_N0509_... has --baseline 05.09)"
                )
            if parse_baseline(baseline) >= parse_baseline(self.offset_since):
                offset = self.add_offset / self.quantification
        return Radiometry(1 / self.quantification, offset, self.nodata, self.saturated, self.dtype)


def parse_baseline(baseline: str) -> tuple[int, int]:
    """Major and minor number of a Sentinel-2 processing baseline, which compare as numbers.

    Raises:
        RadiometryError: The text is not a baseline.

    >>> parse_baseline("04.00"), parse_baseline("4.0"), parse_baseline("N0509")
    ((4, 0), (4, 0), (5, 9))
    """
    match = re.fullmatch(r"[Nn]?(\d\d)(\d\d)|[Nn]?(\d{1,2})\.(\d{1,2})", baseline.strip())
    if match is None:
        raise RadiometryError(f"processing baseline {baseline!r} is not of the form 04.00 or N0400")
    major, minor = (group for group in match.groups() if group is not None)
    return int(major), int(minor)


def get_sensor(name: str) -> Sensor:
    """The sensor with this name.

    Raises:
        BandError: No sensor has this name.

    >>> get_sensor("sentinel-2-l1c").title
    'Sentinel-2 Level-1C, top-of-atmosphere reflectance'
    """
    try:
        return SENSORS[name.lower()]
    except KeyError:
        raise BandError(f"sensor {name!r} is unknown ({' '.join(SENSORS)})" + did_you_mean(name, SENSORS)) from None


def canonical_band(name: str) -> str | None:
    """The Sentinel-2 name (``B01`` to ``B12``, ``B8A``) behind a band description or a part of a file name, or None.

    What follows a comma, a colon, a bracket or `` - `` is commentary.

    >>> [canonical_band(name) for name in ("B4", "Band 8A", "red", "B04, central wavelength 665 nm", "sur_refl_b01")]
    ['B04', 'B8A', 'B04', 'B04', None]
    """
    return _CANONICAL.get(_key(_bare(name)))


def canonical_name(name: str) -> str | None:
    """The Sentinel-2 name as `canonical_band` gives it, also of a band with the spread or the error of another.

    >>> canonical_name("red"), canonical_name("red_error"), canonical_name("B4_spread"), canonical_name("type_error")
    ('B04', 'B04_error', 'B04_spread', None)
    """
    bare = _bare(name)
    suffix = next((suffix for suffix in QUALITY_SUFFIXES if bare.endswith(suffix)), "")
    band = canonical_band(bare.removesuffix(suffix))
    return None if band is None else band + suffix


def spelt_band(name: str) -> str:
    """The name of a known band as a description spells it, without commentary; any other description as it is.

    >>> spelt_band("B4, central wavelength 665 nm"), spelt_band("red"), spelt_band("thermal (10.9)")
    ('B4', 'red', 'thermal (10.9)')
    """
    return _bare(name) if canonical_name(name) else name


def common_name(name: str) -> str | None:
    """The common name of a Sentinel-2 band in the electro-optical extension of STAC, version 2.0; None of others.

    >>> common_name("B04"), common_name("Red"), common_name("B8A"), common_name("B04_error")
    ('red', 'red', 'nir08', None)
    """
    return _COMMON_NAMES.get(canonical_band(name) or "")


def _bare(name: str) -> str:
    """A band description without what follows a comma, a colon, a bracket or `` - ``."""
    return re.split(r"[,:(]| - ", name, maxsplit=1)[0].strip()


def shown_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """The three of ``bands`` to show as red, green and blue: those colours where all are there, else the first in grey.

    >>> shown_bands(["B02", "B03", "B04", "B08"]), shown_bands(["B05", "B06"])
    (('B04', 'B03', 'B02'), ('B05', 'B05', 'B05'))
    """
    return RGB if set(RGB) <= set(bands) else (bands[0],) * 3


def _key(name: str) -> str:
    """A name without what does not matter in it."""
    return re.sub(r"[\s_-]", "", name).lower()


def _numbered(number: str) -> tuple[str, ...]:
    """The ways to write a band number below 10: B4, B04, Band 4, Band 04."""
    return tuple(prefix + digits for digits in (number, f"0{number}") for prefix in ("B", "Band "))


# Centre wavelength and bandwidth: Sentinel-2A in the ESA Sentinel-2 Spectral Response Functions
# (COPE-GSEG-EOPG-TN-15-0007, version 3.0 and later).
# MTF at Nyquist: as used by S2Sharp (Ulfarsson et al. 2019, IEEE TGRS 57(9), doi:10.1109/TGRS.2019.2906048) and the
# sharpening codes that follow it; that list has no value for B10.
# SNR at the reference radiance: Drusch et al. 2012 (Remote Sensing of Environment 120, doi:10.1016/j.rse.2011.11.026),
# table 1, the mission's requirement. The reference reflectance is pi L / E of that table's radiance L and of the band's
# solar irradiance E in the products' metadata (SOLAR_IRRADIANCE, Sentinel-2A), the Sun overhead and at 1 au.
_SENTINEL_2 = (
    Band("B01", (*_numbered("1"), "coastal", "coastal aerosol", "aerosol"), 442.7, 21, 60, 0.32, 129, 0.215),
    Band("B02", (*_numbered("2"), "blue"), 492.4, 66, 10, 0.26, 154, 0.205),
    Band("B03", (*_numbered("3"), "green"), 559.8, 36, 10, 0.28, 168, 0.221),
    Band("B04", (*_numbered("4"), "red"), 664.6, 31, 10, 0.24, 142, 0.224),
    Band("B05", (*_numbered("5"), "rededge1", "rededge071"), 704.1, 15, 20, 0.38, 117, 0.164),
    Band("B06", (*_numbered("6"), "rededge2", "rededge075"), 740.5, 15, 20, 0.34, 89, 0.166),
    Band("B07", (*_numbered("7"), "rededge3", "rededge078"), 782.8, 20, 20, 0.34, 105, 0.181),
    Band("B08", (*_numbered("8"), "nir", "near infrared"), 832.8, 106, 10, 0.26, 174, 0.311),
    Band("B8A", (*_numbered("8A"), "nir08", "narrow nir", "nir narrow"), 864.7, 21, 20, 0.33, 72, 0.173),
    Band("B09", (*_numbered("9"), "nir09", "water vapour", "water vapor"), 945.1, 20, 60, 0.26, 114, 0.0348),
    Band("B10", ("Band 10", "cirrus"), 1373.5, 31, 60, None, 50, 0.0513),
    Band("B11", ("Band 11", "swir16", "swir1"), 1613.7, 91, 20, 0.22, 100, 0.0512),
    Band("B12", ("Band 12", "swir22", "swir2"), 2202.4, 175, 20, 0.23, 100, 0.0553),
)
# Centre and width of the ranges in the common-name table of the STAC electro-optical extension, version 1.1.
_COMMON = (
    Band("coastal", (), 425, 50),
    Band("blue", (), 475, 50),
    Band("green", (), 550, 100),
    Band("yellow", (), 600, 40),
    Band("red", (), 650, 100),
    Band("rededge", (), 745, 90),
    Band("nir", ("near infrared",), 875, 250),
    Band("nir08", ("narrow nir",), 825, 150),
    Band("nir09", (), 950, 200),
    Band("cirrus", (), 1375, 50),
    Band("swir16", ("swir1",), 1650, 200),
    Band("swir22", ("swir2",), 2200, 200),
)


def _sentinel_2(level: str, title: str) -> Sensor:
    # Quantification, special values and the offset of -1000 since baseline 04.00: Sentinel-2 Products Specification
    # Document (S2-PDGS-TAS-DI-PSD), RADIO_ADD_OFFSET and BOA_ADD_OFFSET.
    return Sensor(
        name=f"sentinel-2-{level.lower()}",
        title=title,
        bands=_SENTINEL_2,
        quantification=10000,
        nodata=0,
        saturated=65535,
        add_offset=-1000,
        offset_since="04.00",
    )


SENSORS: Mapping[str, Sensor] = MappingProxyType(
    {
        sensor.name: sensor
        for sensor in (
            # Products hold no B10 at Level-2A; it stays known, because scenes are made of both levels.
            _sentinel_2("L2A", "Sentinel-2 Level-2A, surface reflectance"),
            _sentinel_2("L1C", "Sentinel-2 Level-1C, top-of-atmosphere reflectance"),
            Sensor("reflectance", "Values that are reflectance already", _COMMON, dtype="float32"),
        )
    }
)
"""Every sensor that geosr knows, by name."""

RGB = ("B04", "B03", "B02")
"""Red, green and blue of Sentinel-2."""

INDICES = {
    "ndvi": ("B08", "B04"),
    "ndwi": ("B03", "B08"),
    "ndmi": ("B8A", "B11"),
    "nbr": ("B8A", "B12"),
    "ndre": ("B8A", "B05"),
}
"""Bands a and b of spectral indices ``(a - b) / (a + b)``, by name.

Vegetation (J. W. Rouse et al., ERTS-1 symposium, 1974), open water (S. K. McFeeters, Int. J. Remote Sens. 17, 1996),
moisture of leaves (B.-C. Gao, Remote Sens. Environ. 58, 1996), burnt ground (C. H. Key, N. C. Benson, FIREMON, 2006),
chlorophyll by the red edge (A. Gitelson, M. N. Merzlyak, J. Plant Physiol. 143, 1994)."""

QUALITY_SUFFIXES = ("_spread", "_error")
"""Endings of the names of bands that say how sure another band is: its spread, its expected error."""

_COMMON_NAMES = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071", "B06": "rededge075",
    "B07": "rededge078", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B10": "cirrus", "B11": "swir16",
    "B12": "swir22",
}  # fmt: skip
_CANONICAL = {_key(alias): band.name for band in _SENTINEL_2 for alias in (band.name, *band.aliases)}
