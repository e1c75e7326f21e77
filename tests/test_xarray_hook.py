import subprocess
import sys

import pytest


def in_a_fresh_interpreter(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import geosr, xarray",
        "import xarray, geosr",
        "import geosr, importlib.util as u; spec = u.find_spec('xarray'); assert spec.origin; import xarray",
        "import geosr, threading as t; ts = [t.Thread(target=__import__, args=('xarray',)) for _ in range(8)];"
        "[x.start() for x in ts]; [x.join() for x in ts]; import xarray",
        "import geosr.xr, xarray",
        "from geosr import open; import xarray",
    ],
)
def test_the_accessor_is_there_in_any_order(code):
    asked = (
        "; import sys; assert hasattr(xarray.Dataset, 'geosr') and hasattr(xarray.DataArray, 'geosr'); "
        "assert not [f for f in sys.meta_path if 'geosr' in type(f).__module__]; "
        "assert 'geosr' not in type(xarray.__spec__.loader).__module__; print('torch' in sys.modules)"
    )
    assert in_a_fresh_interpreter(code + asked) == "False"


def test_looking_for_xarray_changes_nothing():
    code = (
        "import geosr, sys, importlib.util as u; n = len(sys.meta_path); u.find_spec('xarray'); "
        "assert len(sys.meta_path) == n; print('xarray' in sys.modules)"
    )
    assert in_a_fresh_interpreter(code) == "False"


def test_without_xarray_the_rest_works_and_open_says_what_is_missing():
    code = (
        "import sys; sys.modules['xarray'] = None\n"
        "import geosr\n"
        "try:\n    geosr.open\n"
        "except geosr.GeosrError as error:\n    print(error)"
    )
    assert "pip install 'geosr[xarray]'" in in_a_fresh_interpreter(code)


@pytest.mark.parametrize(
    ("missing", "use", "message"),
    [
        ("xarray", "geosr.open('scene.tif')", "a scene as an xarray object needs xarray: pip install 'geosr[xarray]'"),
        ("lightning", "geosr.train()", "training needs lightning: pip install 'geosr[train]'"),
        ("lightning", "from geosr.training import train", "training needs lightning: pip install 'geosr[train]'"),
        (
            "lightning",
            "geosr.data.GeoSRDataModule",
            "geosr.data.GeoSRDataModule needs lightning: pip install 'geosr[train]'",
        ),
    ],
)
def test_a_missing_extra_is_named_as_the_command_names_it(missing, use, message):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\nimport geosr, geosr.data\n"
        f"try:\n    {use}\nexcept geosr.GeosrError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == (message, 0), done.stderr
