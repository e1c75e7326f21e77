import threading
from collections import Counter

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import torch
from calibration_kit import calibrated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geosr.demo import demo_scene
from geosr.errors import GridError, ModelError, RadiometryError
from geosr.inference import SuperResolver, load_model, predict
from geosr.inference.arrays import Encoding, superresolve_array
from geosr.inference.ensemble import Answer
from geosr.inference.job import spread_radiometry
from geosr.inference.resident import keep, locate
from geosr.io.plausibility import Plausibility
from geosr.io.raster import Raster
from geosr.models import Model, ModelSpec
from geosr.radiometry import Radiometry
from geosr.testing import block_model, impulse_model

BANDS = ("B02", "B03", "B04", "B08")
DN = Radiometry(scale=1e-4, offset=-0.1, nodata=0)
REFLECTANCE = Radiometry(scale=1.0, nodata=float("nan"), dtype="float32")
IN_DN = Encoding(DN, (DN,), (None,))
AS_REFLECTANCE = Encoding(DN, (REFLECTANCE,), (None,))


@pytest.fixture(autouse=True, scope="module")
def one_task_at_a_time():
    with dask.config.set(scheduler="synchronous"):
        yield


def resolver_of(model):
    return SuperResolver(model, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def resolvers():
    """Sums over neighbours and means over blocks turn any wrong neighbour into a wrong number."""
    shipped = {"s2-rgbn-x4": load_model("s2-rgbn-x4", device="cpu", precision="fp32")}
    return shipped | {"impulse": resolver_of(impulse_model(2, 5)), "blocks": resolver_of(block_model(3, 7))}


def noisy(**facts):
    torch.manual_seed(0)
    arguments = {"channels": 8, "blocks": 1, "mean": [0.2, 0.3], "std": [0.1, 0.1]}
    return resolver_of(Model(ModelSpec("noisy", "stochastic", 2, ("B02", "B03"), arguments, **facts)))


def pixels(*shape, seed=0, holes=False):
    """Digital numbers of (..., band, y, x), with invalid pixels at edges, in the middle and scattered."""
    rng = np.random.default_rng(seed)
    dn = rng.integers(1001, 4000, shape).astype("uint16")
    if holes:
        invalid = rng.random(shape[-2:]) < 0.02
        invalid[: shape[-2] // 4, : shape[-1] // 5] = invalid[shape[-2] // 2 :, -2:] = True
        dn[..., invalid] = 0
    return dn


def whole(resolver, dn):
    """Reflectance of an image in one piece."""
    valid = DN.valid(dn)
    lr = Raster(DN.to_reflectance(dn), valid, GeoBox(dn.shape[-2:], _affine(), "EPSG:32633"), resolver.spec.bands, DN)
    return resolver.superresolve(lr)


def _affine():
    from affine import Affine

    return Affine(10, 0, 400_000, 0, -10, 5_000_000)


def chunkings(length):
    """Ways to cut ``length`` into chunks, slivers among them."""
    cuts = st.sets(st.integers(1, length - 1), max_size=6)
    return cuts.map(lambda found: tuple(int(side) for side in np.diff([0, *sorted(found), length])))


@pytest.mark.parametrize("name", ["impulse", "blocks"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=chunkings(50), columns=chunkings(37), holes=st.booleans(), seed=st.integers(0, 5))
def test_chunks_do_not_show(resolvers, name, rows, columns, holes, seed):
    resolver, dn = resolvers[name], pixels(4, 50, 37, seed=seed, holes=holes)
    expected = whole(resolver, dn)
    lazy = da.from_array(dn, chunks=(1, rows, columns))
    sr = superresolve_array(lazy, keep(resolver), AS_REFLECTANCE).compute()
    np.testing.assert_array_equal(np.isnan(sr), np.isnan(expected.array))
    assert np.nanmax(np.abs(sr - expected.array), initial=0) <= 1e-5
    digital = superresolve_array(lazy, keep(resolver), IN_DN).compute()
    assert digital.dtype == np.uint16
    assert np.abs(digital.astype(int) - expected.to_digital()).max() <= 1
    np.testing.assert_array_equal(digital == 0, np.isnan(expected.array))


@pytest.mark.parametrize("chunks", [(4, 128, 128), (2, (100, 3, 90), (7, 150, 29)), -1])
def test_a_shipped_model_gives_what_predict_gives(resolvers, make_raster, tmp_path, chunks):
    with rasterio.open(demo_scene()) as file:
        dn = file.read()[:, 40:233, 200:386].copy()
    dn[:, 60:80, 100:] = 0
    path = make_raster(dn, nodata=0, scale=1e-4, descriptions=BANDS)
    resolver = resolvers["s2-rgbn-x4"]
    with rasterio.open(predict(path, tmp_path / "sr.tif", model=resolver).path) as file:
        expected = file.read()
    plain = Radiometry(1e-4, nodata=0)
    sr = superresolve_array(da.from_array(dn, chunks=chunks), keep(resolver), Encoding(plain, (plain,), (None,)))
    difference = np.abs(sr.compute().astype(int) - expected)
    assert difference.max() <= 1  # the network rounds a little differently in tiles of other sizes
    assert (difference > 0).mean() < 1e-4


@pytest.mark.parametrize("chunks", [(560, 70), (300, 70), (100, 20)])
def test_an_approximate_model_is_tiled_as_predict_tiles_it(make_raster, tmp_path, chunks):
    resolver = noisy(tiling="approximate", halo=3)  # far less than it looks, so that tiles differ
    dn = pixels(2, 560, 70, holes=True)
    path = make_raster(dn, nodata=0, scale=1e-4, offset=-0.1, descriptions=("B02", "B03"))
    with rasterio.open(predict(path, tmp_path / "sr.tif", model=resolver).path) as file:
        expected = file.read()
    sr = superresolve_array(da.from_array(dn, chunks=(2, *chunks)), keep(resolver), IN_DN)
    assert sr.chunks[1][0] == 2 * chunks[0]
    np.testing.assert_array_equal(sr.compute(), expected)


def test_an_ensemble_is_that_of_predict(make_raster, tmp_path):
    resolver, dn = noisy(), pixels(2, 60, 50, holes=True)
    path = make_raster(dn, nodata=0, scale=1e-4, offset=-0.1, descriptions=("B02", "B03"))
    with rasterio.open(predict(path, tmp_path / "sr.tif", model=resolver, samples=3, seed=7).path) as file:
        expected = file.read()
    encoding = Encoding(DN, (DN, spread_radiometry(DN)), (None, None))
    lazy = da.from_array(dn, chunks=(2, 25, 31))
    sr = superresolve_array(lazy, keep(resolver), encoding, answer=Answer(range(7, 10))).compute()
    assert sr.shape == expected.shape == (4, 120, 100)
    assert expected[2:].max() > 2
    assert np.abs(sr.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", ["impulse", "blocks"])
def test_orientations_and_errors_do_not_show_chunks(resolvers, name):
    resolver = resolver_of(calibrated(resolvers[name].model))
    dn, plain = pixels(4, 50, 37, holes=True), Radiometry(1e-4, -0.1, nodata=0)
    image = Raster(
        plain.to_reflectance(dn), plain.valid(dn), GeoBox((50, 37), _affine(), "EPSG:32633"), resolver.spec.bands, plain
    )
    expected = resolver.superresolve(image, tta=True, confidence=True).array
    lazy = da.from_array(dn, chunks=(4, (9, 30, 11), (20, 17)))
    encoding = Encoding(DN, (REFLECTANCE, REFLECTANCE), (None, None))
    sr = superresolve_array(lazy, keep(resolver), encoding, answer=resolver.answer(tta=True, confidence=True))
    assert sr.shape == expected.shape == (8, 50 * resolver.spec.scale, 37 * resolver.spec.scale)
    np.testing.assert_allclose(sr.compute(), expected, atol=1e-5)
    assert np.nanstd(expected[4:]) > 1e-3
    single = superresolve_array(lazy, keep(resolver), AS_REFLECTANCE)
    assert single.name != superresolve_array(lazy, keep(resolver), AS_REFLECTANCE, answer=Answer(tta=True)).name


def test_each_image_of_a_series_is_an_image_of_its_own(resolvers):
    resolver = resolvers["impulse"]
    dn = np.stack([pixels(4, 31, 29, seed=seed, holes=seed == 1) for seed in range(3)])[:, None]
    lazy = da.from_array(dn, chunks=(2, 1, 4, 16, 29))
    for array in (dn, lazy):
        sr = superresolve_array(array, keep(resolver), AS_REFLECTANCE)
        assert sr.shape == (3, 1, 4, 62, 58)
        for one, expected in zip(np.asarray(sr)[:, 0], dn[:, 0], strict=True):
            np.testing.assert_allclose(one, whole(resolver, expected).array, atol=1e-6)


def test_numpy_in_numpy_out(resolvers):
    dn = pixels(4, 20, 30, holes=True)
    sr = superresolve_array(dn, keep(resolvers["blocks"]), IN_DN, batch_size=3)
    assert isinstance(sr, np.ndarray)
    np.testing.assert_array_equal(sr, whole(resolvers["blocks"], dn).to_digital())


def test_chunks_scale_and_slivers_are_worked_on_with_a_neighbour(resolvers):
    resolver = resolvers["impulse"]
    lazy = da.from_array(pixels(4, 100, 60), chunks=(4, (40, 2, 40, 18), (4, 56)))
    assert resolver.halo == 5
    sr = superresolve_array(lazy, keep(resolver), IN_DN)
    assert sr.chunks == ((4,), (80, 4, 80, 36), (8, 112))
    (layer,) = (dict(tasks) for name, tasks in sr.dask.layers.items() if name.startswith("superresolve"))
    assert len(layer) == 3


def counted(dn, chunks):
    """A dask array of these pixels, and how often each of its chunks was computed."""
    counts, lock = Counter(), threading.Lock()
    template = da.from_array(dn, chunks=chunks)

    def load(block_info=None):
        place = tuple(slice(*along) for along in block_info[None]["array-location"])
        with lock:
            counts[str(place)] += 1
        return dn[place]

    return da.map_blocks(load, chunks=template.chunks, dtype=dn.dtype, meta=dn[:0, :0, :0]), counts


@pytest.mark.parametrize("model", ["exact", "approximate"])
def test_every_chunk_is_computed_once_and_none_by_the_call(resolvers, model):
    resolver = resolvers["impulse"] if model == "exact" else noisy(tiling="approximate", halo=3)
    bands = len(resolver.spec.bands)
    height = 90 if model == "exact" else 600
    lazy, counts = counted(pixels(bands, height, 80), (1, height // 3, 20))
    sr = superresolve_array(lazy, keep(resolver), IN_DN)
    assert not counts
    with dask.config.set(scheduler="threads"):
        sr.compute()
    assert set(counts.values()) == {1}
    assert len(counts) == bands * 12


def test_a_part_of_the_result_needs_its_surroundings_alone(resolvers):
    lazy, counts = counted(pixels(4, 200, 200), (4, 20, 20))
    superresolve_array(lazy, keep(resolvers["impulse"]), IN_DN)[:, :10, :10].compute()
    assert 0 < len(counts) <= 9


def test_tasks_are_small_and_work_in_other_processes(small_weights):
    key = locate(small_weights, device="cpu", precision="fp32")
    dn = pixels(4, 40, 44)
    lazy = da.from_array(np.zeros_like(dn), chunks=(4, 20, 22)) + dn[0, 0, 0]
    sr = superresolve_array(lazy, key, IN_DN)
    layer = sr.dask.layers[sr.name]
    sizes = [len(cloudpickle.dumps(task)) for task in dict(layer).values()]
    assert len(sizes) == 4
    assert max(sizes) < 100_000
    here = superresolve_array(lazy.compute(), key, IN_DN)
    np.testing.assert_array_equal(sr.compute(scheduler="processes", num_workers=1), here)


def test_a_model_in_memory_says_why_it_stays_there(resolvers):
    sr = superresolve_array(da.from_array(pixels(4, 9, 9), chunks=-1), keep(resolvers["impulse"]), IN_DN)
    with pytest.raises(ModelError, match="save it with"):
        cloudpickle.dumps(next(iter(dict(sr.dask.layers[sr.name]).values())))


@pytest.mark.parametrize("lazy", [True, False])
def test_large_numbers_that_nothing_explains_are_refused_when_they_are_seen(resolvers, lazy):
    values = pixels(4, 20, 20).astype("float32")
    array = da.from_array(values, chunks=(4, 10, 10)) if lazy else values
    check = Plausibility("the cube", REFLECTANCE, {}, assumed=True, stated=frozenset())
    encoding = Encoding(REFLECTANCE, (REFLECTANCE,), (None,), check)
    with pytest.raises(RadiometryError, match=r"the cube holds float32 values with a median of \d+.*(?s:.*)scale=1e-4"):
        np.asarray(superresolve_array(array, keep(resolvers["impulse"]), encoding))
    small = superresolve_array(array / np.float32(10000), keep(resolvers["impulse"]), encoding)
    assert np.isfinite(np.asarray(small)).all()


def test_values_that_will_be_written_as_integers_stay_clear_of_nodata(resolvers):
    reflectance = np.full((4, 12, 12), 2e-5, np.float32)
    reflectance[:, 3, 3] = np.nan
    encoding = Encoding(REFLECTANCE, (REFLECTANCE,), (Radiometry(1e-4, nodata=0),))
    sr = superresolve_array(reflectance, keep(resolvers["blocks"]), encoding)
    assert np.nanmin(np.rint(sr / 1e-4)) == 1
    np.testing.assert_array_equal(np.isnan(sr), np.isnan(reflectance).repeat(3, 1).repeat(3, 2))


def test_an_array_of_other_bands_is_refused(resolvers):
    with pytest.raises(GridError, match=r"\(3, 9, 9\).*4 bands"):
        superresolve_array(pixels(3, 9, 9), keep(resolvers["impulse"]), IN_DN)
