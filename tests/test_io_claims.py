import pytest

from geosr.errors import RadiometryError, UsageError
from geosr.io.claims import Claims, shared_encoding
from geosr.io.source import Said, StoredBand


def test_a_claim_fills_silence():
    known = Claims(scale=1e-4, nodata=0).explain(StoredBand("B02", "uint16"), name="scene")
    assert (known.scale.value, known.nodata.value) == (1e-4, 0)
    assert known.scale.source == "flag --scale"
    assert known.offset is None
    assert known.description == "B02"


def test_a_sensor_fills_what_is_left():
    claims = Claims(sensor="sentinel-2-l2a", baseline="05.09", form="argument")
    known = claims.explain(StoredBand(None, "uint16", scale=Said(1e-4, "file")), name="scene")
    assert known.scale == Said(1e-4, "file")
    assert (known.offset.value, known.nodata.value, known.saturated.value) == (-0.1, 0, 65535)
    assert known.offset.source == "argument sensor='sentinel-2-l2a' baseline=05.09"
    assert claims.explain(StoredBand(None, "uint8"), name="scene").saturated is None  # no uint8 is 65535


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("flag", r"flag --scale says 0.01; drop the flag, or .*gdal_edit"),
        ("argument", r"argument scale= says 0.01; drop the arg"),
    ],
)
def test_a_claim_overrules_nothing(form, message):
    with pytest.raises(RadiometryError, match=message):
        Claims(scale=0.01, form=form).explain(StoredBand(None, "uint16", scale=Said(1e-4, "file")), name="scene")


@pytest.mark.parametrize(("form", "words"), [("flag", "--baseline 05.09"), ("argument", "baseline=05.09")])
def test_a_baseline_needs_its_sensor(form, words):
    with pytest.raises(UsageError, match=words):
        Claims(baseline="05.09", form=form)


@pytest.mark.parametrize(
    ("form", "remedy"),
    [("flag", "--scale 1e-4 --offset -0.1 --nodata 0\n"), ("argument", "scale=1e-4, offset=-0.1, nodata=0\n")],
)
def test_silence_says_how_to_end_it(form, remedy):
    told = Claims(form=form).silence("scene.tif", "uint16", "values from 1 to 2", nodata=None)
    assert told.startswith("scene.tif holds uint16 values from 1 to 2 and says nothing about their unit.\n")
    assert remedy in told
    assert "nodata" not in Claims(form=form).silence("scene.tif", "int16", "values", nodata=Said(-9999, "file"))


def test_bands_that_differ_are_refused():
    bands = [StoredBand(None, "uint16", scale=Said(scale, "file")) for scale in (1e-4, 1e-4, 2e-4)]
    assert shared_encoding(bands[:2], name="scene")["scale"] == 1e-4
    with pytest.raises(RadiometryError, match=r"different scale \(0.0001, 0.0002\)"):
        shared_encoding(bands, name="scene")
