import dataclasses
import math
from collections import Counter

import pytest

from geosr.errors import BandError, RadiometryError
from geosr.radiometry import Radiometry
from geosr.sensors import (
    SENSORS,
    _key,
    canonical_band,
    canonical_name,
    common_name,
    get_sensor,
    parse_baseline,
    spelt_band,
)


@pytest.fixture(params=["sentinel-2-l2a", "sentinel-2-l1c"])
def sentinel_2(request):
    return get_sensor(request.param)


def test_the_instrument_has_its_13_bands_in_order_of_wavelength(sentinel_2):
    assert " ".join(sentinel_2.band_names) == "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12"
    wavelengths = [band.wavelength for band in sentinel_2.bands]
    assert wavelengths == sorted(wavelengths)
    assert Counter(band.gsd for band in sentinel_2.bands) == {10: 4, 20: 6, 60: 3}


def test_mtf_at_nyquist_lies_below_that_of_the_bare_detector(sentinel_2):
    assert all(0.1 < band.mtf < 2 / 3.14159 for band in sentinel_2.bands if band.mtf is not None)
    assert [band.name for band in sentinel_2.bands if band.mtf is None] == ["B10"]


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("B04", "B04"),
        ("B4", "B04"),
        ("b04", "B04"),
        ("Band 4", "B04"),
        ("Red", "B04"),
        ("nir", "B08"),
        ("nir08", "B8A"),
        ("Narrow NIR", "B8A"),
        ("narrow_nir", "B8A"),
        ("b8a", "B8A"),
        ("B08A", "B8A"),
        ("coastal", "B01"),
        ("rededge1", "B05"),
        ("red edge 2", "B06"),
        ("rededge078", "B07"),
        ("nir09", "B09"),
        ("cirrus", "B10"),
        ("swir16", "B11"),
        ("swir22", "B12"),
    ],
)
def test_an_alias_names_its_band(sentinel_2, alias, name):
    assert sentinel_2.band(alias).name == name
    assert canonical_band(alias) == name


def test_no_alias_names_two_bands():
    for sensor in SENSORS.values():
        names = [name for band in sensor.bands for name in {_key(band.name), *map(_key, band.aliases)}]
        assert len(names) == len(set(names)), sensor.name


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("B04, central wavelength 665 nm", "B04"),
        ("B8A, central wavelength 865 nm", "B8A"),
        ("B4 (665 nm)", "B04"),
        ("B11: SWIR", "B11"),
        ("B02 - blue", "B02"),
        ("", None),
        ("B13", None),
        ("B0", None),
        ("4", None),
        ("rededge", None),  # one of three
        ("sur_refl_b01", None),
        ("SR_B5", None),  # Landsat
        ("TCI", None),
        ("20170527", None),
        ("SCL", None),
    ],
)
def test_descriptions_become_canonical_names_or_nothing(text, band):
    assert canonical_band(text) == band


def test_an_unknown_band_is_an_error_that_teaches(sentinel_2):
    with pytest.raises(BandError) as caught:
        sentinel_2.band("B99")
    assert str(caught.value) == (
        f"band 'B99' is not in sensor '{sentinel_2.name}' (B01 B02 ... B12); did you mean 'B09'?"
    )


def test_an_unknown_sensor_is_an_error_that_teaches():
    with pytest.raises(BandError, match=r"'sentinel-2-l3a' is unknown .*did you mean 'sentinel-2-l[12][ac]'"):
        get_sensor("sentinel-2-l3a")


@pytest.mark.parametrize("baseline", ["04.00", "4.0", "N0400", "0400", "05.09", "N0509", "10.00", " 05.11 "])
def test_the_offset_exists_since_baseline_04_00(sentinel_2, baseline):
    assert sentinel_2.radiometry(baseline) == Radiometry(1e-4, -0.1, nodata=0, saturated=65535, dtype="uint16")


@pytest.mark.parametrize("baseline", ["02.12", "N0301", "3.1", "03.99"])
def test_there_is_no_offset_before_baseline_04_00(sentinel_2, baseline):
    assert sentinel_2.radiometry(baseline) == Radiometry(1e-4, 0.0, nodata=0, saturated=65535, dtype="uint16")


def test_a_missing_baseline_is_asked_for(sentinel_2):
    with pytest.raises(RadiometryError, match=r"give --baseline .*Nxxxx in the product name"):
        sentinel_2.radiometry()


@pytest.mark.parametrize("baseline", ["new", "5", "", "04.00.1", "2023-01-01"])
def test_what_is_no_baseline_is_refused(baseline):
    with pytest.raises(RadiometryError, match=r"not of the form 04\.00"):
        parse_baseline(baseline)


def test_reflectance_is_what_it_says():
    sensor = get_sensor("reflectance")
    assert sensor.radiometry() == Radiometry(scale=1.0, dtype="float32")
    assert sensor.band("RED").name == "red"


def test_sensors_cannot_be_changed():
    with pytest.raises(TypeError):
        SENSORS["mine"] = SENSORS["reflectance"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SENSORS["reflectance"].name = "mine"


def test_the_reference_reflectance_is_that_of_the_reference_radiance():
    # pi L / E with the mission's reference radiance L and Sentinel-2A's solar irradiance E, both in W / m2 / (sr) / um.
    radiance = {"B02": 128, "B04": 108, "B08": 103, "B12": 1.5}
    irradiance = {"B02": 1959.72, "B04": 1512.06, "B08": 1041.63, "B12": 85.25}
    sensor = get_sensor("sentinel-2-l2a")
    for name in radiance:
        assert sensor.band(name).reference == pytest.approx(math.pi * radiance[name] / irradiance[name], rel=3e-3)
    assert all(band.snr and band.reference for band in sensor.bands)


def test_every_band_of_sentinel_2_has_its_own_common_name_which_is_an_alias_of_it():
    bands = get_sensor("sentinel-2-l2a").band_names
    assert tuple(canonical_band(common_name(band)) for band in bands) == bands


@pytest.mark.parametrize(
    ("name", "canonical", "label"),
    [
        ("red", "B04", "red"),
        ("B4, central wavelength 665 nm", "B04", "B4"),
        ("nir_error", "B08_error", "nir_error"),
        ("B8A_spread (reflectance)", "B8A_spread", "B8A_spread"),
        ("type_error", None, "type_error"),
        ("thermal (10.9 um)", None, "thermal (10.9 um)"),
    ],
)
def test_a_band_keeps_the_spelling_of_its_name_without_commentary(name, canonical, label):
    assert (canonical_name(name), spelt_band(name)) == (canonical, label)
