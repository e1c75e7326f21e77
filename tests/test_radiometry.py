import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geosr.errors import RadiometryError
from geosr.radiometry import Radiometry
from geosr.sensors import get_sensor

INTEGERS = ["uint8", "int16", "uint16"]
SHAPE = (3, 4, 5)


@st.composite
def radiometries(draw, dtype):
    """Encodings that occur: percent, per mille, 1e-4, 1/255, MODIS and Landsat factors, with and without offset."""
    scale = draw(st.sampled_from([1e-4, 1e-3, 0.01, 1 / 255, 2e-5, 2.75e-5, 1.0, 1 / 3]))
    offset = draw(st.sampled_from([0.0, -0.1, -0.2, 0.05]))
    info = np.iinfo(dtype)
    marker = st.none() | st.sampled_from([int(info.min), int(info.max), 0, 1]) | st.integers(info.min, info.max)
    return Radiometry(scale, offset, nodata=draw(marker), saturated=draw(marker), dtype=dtype)


@st.composite
def encoded(draw):
    """A radiometry and digital numbers of its type, with its markers among them."""
    dtype = draw(st.sampled_from(INTEGERS))
    radiometry = draw(radiometries(dtype))
    dn = draw(arrays(dtype, SHAPE))
    for marker in (radiometry.nodata, radiometry.saturated):
        if marker is not None:
            dn[draw(arrays(bool, SHAPE))] = marker
    return radiometry, dn


def valid_oracle(radiometry, dn):
    """Pixel by pixel, in plain Python."""
    bad = {radiometry.nodata, radiometry.saturated}
    return np.array(
        [[all(int(band[y, x]) not in bad for band in dn) for x in range(dn.shape[2])] for y in range(dn.shape[1])]
    )


@given(encoded())
def test_every_valid_dn_survives_the_round_trip(case):
    radiometry, dn = case
    back = radiometry.to_digital(radiometry.to_reflectance(dn))
    valid = valid_oracle(radiometry, dn)
    np.testing.assert_array_equal(radiometry.valid(dn), valid)
    assert back.dtype == dn.dtype
    np.testing.assert_array_equal(back[:, valid], dn[:, valid])
    assert (back[:, ~valid] == (radiometry.nodata or 0)).all()


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("scale", [1e-4, 1 / 255, 2e-5, 2.75e-5])
@pytest.mark.parametrize("offset", [0.0, -0.1, -0.2])
def test_all_numbers_of_a_type_survive_the_round_trip(dtype, scale, offset):
    info = np.iinfo(dtype)
    dn = np.arange(info.min, info.max + 1).astype(dtype).reshape(1, 1, -1)
    radiometry = Radiometry(scale, offset, dtype=dtype)
    np.testing.assert_array_equal(radiometry.to_digital(radiometry.to_reflectance(dn)), dn)


@pytest.mark.parametrize("baseline", ["02.12", "05.09"])
@pytest.mark.parametrize("name", ["sentinel-2-l2a", "sentinel-2-l1c"])
def test_all_valid_numbers_of_a_sensor_survive_the_round_trip(name, baseline):
    radiometry = get_sensor(name).radiometry(baseline)
    dn = np.arange(1, 65535, dtype="uint16").reshape(1, 1, -1)
    assert radiometry.valid(dn).all()
    np.testing.assert_array_equal(radiometry.to_digital(radiometry.to_reflectance(dn)), dn)


@given(encoded())
def test_reflectance_is_the_exact_formula_within_float32(case):
    radiometry, dn = case
    reflectance = radiometry.to_reflectance(dn)
    assert reflectance.dtype == np.float32
    valid = valid_oracle(radiometry, dn)
    assert np.isnan(reflectance[:, ~valid]).all()
    scale, offset = Fraction(radiometry.scale), Fraction(radiometry.offset)
    for number, value in zip(dn[:, valid].flat, reflectance[:, valid].flat, strict=True):
        exact = float(int(number) * scale + offset)
        assert value == pytest.approx(exact, rel=1e-6, abs=1e-6 * radiometry.scale + 1e-7 * abs(radiometry.offset))


@pytest.mark.parametrize("dtype", [*INTEGERS, "int32", "uint32", "float32", "float64"])
@given(
    reflectance=arrays(
        np.float32,
        SHAPE,
        elements=st.floats(-2, 8, width=32) | st.just(math.nan) | st.sampled_from([-0.1, 0.0, 6.4535]),
    ),
    markers=st.sampled_from([(0, 65535), (255, None), (0, 1), (7, 6)]),
)
def test_valid_never_equals_nodata_and_invalid_always_does(dtype, reflectance, markers):
    nodata, saturated = markers
    radiometry = Radiometry(1e-4, -0.1, nodata=nodata, saturated=saturated, dtype="float64")
    dn = radiometry.to_digital(reflectance, dtype=dtype)
    finite = np.isfinite(reflectance)
    assert dn.dtype == dtype
    assert (dn[~finite] == nodata).all()
    assert not (dn[finite] == nodata).any()
    if saturated is not None:
        assert not (dn[finite] == saturated).any()


def test_a_valid_value_moves_no_further_than_the_neighbouring_dn():
    radiometry = Radiometry(1e-4, nodata=0, saturated=65535)
    np.testing.assert_array_equal(
        radiometry.to_digital(np.float32([[[-1, 0, 1e-5, 6.5534, 6.5535, 99]]])), [[[1, 1, 1, 65534, 65534, 65534]]]
    )


def test_integers_are_rounded_and_clipped():
    radiometry = Radiometry(0.01, dtype="uint8")
    np.testing.assert_array_equal(
        radiometry.to_digital(np.float32([[[0.104, 0.106, -3, 77]]])), np.uint8([[[10, 11, 0, 255]]])
    )


def test_int32_keeps_its_last_digits():
    radiometry = Radiometry(1.0, nodata=-1, dtype="int32")
    assert radiometry.to_digital(np.float64([[[2**31 - 2, -(2**31)]]])).tolist() == [[[2**31 - 2, -(2**31)]]]
    assert radiometry.to_digital(np.float32([[[np.inf, 1e20]]])).tolist() == [[[-1, 2**31 - 1]]]


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_64_bits_are_clipped_without_overflow(dtype):
    dn = Radiometry(1.0, dtype=dtype).to_digital(np.float64([[[1e30, -1e30]]]))
    assert dn[0, 0, 0] > 0.99 * np.iinfo(dtype).max
    assert dn[0, 0, 1] == np.iinfo(dtype).min


def test_floats_are_not_rounded():
    radiometry = Radiometry(0.01, dtype="float32", nodata=-9999)
    dn = radiometry.to_digital(np.float32([[[0.12345, np.nan]]]))
    np.testing.assert_allclose(dn, [[[12.345, -9999]]], rtol=1e-6)


@given(arrays(np.float32, SHAPE, elements=st.floats(-10, 10, width=32)))
def test_float_reflectance_survives_the_round_trip(values):
    radiometry = Radiometry(1.0, nodata=math.nan, dtype="float32")
    np.testing.assert_array_equal(radiometry.to_digital(radiometry.to_reflectance(values)), values)


@pytest.mark.parametrize("nodata", [None, math.nan])
def test_floats_without_a_number_for_nodata_use_nan(nodata):
    radiometry = Radiometry(1.0, nodata=nodata, dtype="float32")
    values = np.float32([[[1, np.nan, np.inf]]])
    np.testing.assert_array_equal(radiometry.valid(values), [[True, False, False]])
    np.testing.assert_array_equal(radiometry.to_digital(values), np.float32([[[1, np.nan, np.nan]]]))


def test_one_invalid_band_makes_the_pixel_invalid():
    dn = np.full((3, 2, 2), 500, dtype="uint16")
    dn[1, 0, 1] = 0
    dn[2, 1, 0] = 65535
    radiometry = Radiometry(1e-4, nodata=0, saturated=65535)
    np.testing.assert_array_equal(radiometry.valid(dn), [[True, False], [False, True]])
    np.testing.assert_array_equal(np.isnan(radiometry.to_reflectance(dn)), [[[False, True], [True, False]]] * 3)


def test_nothing_is_changed_in_place():
    radiometry = Radiometry(1.0, nodata=0, dtype="float32")
    values = np.float32([[[0, 1, np.nan]]])
    before = values.copy()
    radiometry.to_digital(values)
    radiometry.to_reflectance(values)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0}, "scale 0 is not allowed"),
        ({"scale": -1e-4}, "above 0"),
        ({"scale": math.nan}, "finite"),
        ({"scale": 1, "offset": math.inf}, "offset inf is not allowed"),
        ({"scale": 1e-300}, "float32 reflectance cannot hold it"),
        ({"scale": 1e308}, "float32 reflectance cannot hold it"),
        ({"scale": 1.0, "offset": 1e30, "dtype": "float32"}, "drowns scale"),
        ({"scale": 1e-9, "offset": 1.0}, "drowns scale"),
        ({"scale": 1, "nodata": -9999}, r"nodata -9999 does not fit uint16 \(0 to 65535\)"),
        ({"scale": 1, "nodata": math.nan}, "nodata nan does not fit"),
        ({"scale": 1, "nodata": 0.5}, "nodata 0.5 does not fit"),
        ({"scale": 1, "saturated": 65536}, "saturated 65536 does not fit"),
        ({"scale": 1, "nodata": 1e300, "dtype": "float32"}, "does not fit float32"),
        ({"scale": 1, "dtype": "reflectance"}, "unknown; give a numpy name"),
        ({"scale": 1, "dtype": "complex64"}, "holds no real numbers"),
    ],
)
def test_what_cannot_encode_reflectance_is_refused(arguments, message):
    with pytest.raises(RadiometryError, match=message):
        Radiometry(**arguments)


def test_nodata_that_does_not_fit_the_written_type_is_refused():
    with pytest.raises(RadiometryError, match=r"nodata 65535 does not fit uint8 \(0 to 255\)"):
        Radiometry(1e-4, nodata=65535).to_digital(np.zeros((1, 1, 1), np.float32), dtype="uint8")


def test_whole_markers_become_integers():
    radiometry = Radiometry(1e-4, nodata=0.0, dtype="uint16")
    assert isinstance(radiometry.nodata, int)
    assert radiometry == Radiometry(1e-4, nodata=0)
