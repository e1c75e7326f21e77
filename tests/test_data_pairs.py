import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import GridGeoSampler, RandomGeoSampler

from geosr.data.pairs import TorchGeoPairs, pair_grids
from geosr.errors import GridError
from geosr.radiometry import Radiometry
from geosr.testing import coordinate_raster

pytestmark = pytest.mark.filterwarnings("ignore:Use torchgeo:DeprecationWarning")
UTM = "EPSG:32633"


def grid(shape, *, x=400_000.0, y=5_000_000.0, pixel=10.0, crs=UTM):
    return GeoBox(shape, Affine(pixel, 0, x, 0, -pixel, y), crs)


@given(
    scale=st.integers(2, 5),
    row=st.integers(-40, 40),
    column=st.integers(-40, 40),
    hr=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    lr=st.tuples(st.integers(10, 30), st.integers(10, 30)),
)
def test_the_common_part_is_every_lr_pixel_that_hr_covers(scale, row, column, hr, lr):
    coarse = grid(lr, pixel=10.0 * scale)
    fine = grid(hr, x=400_000 + 10 * column, y=5_000_000 - 10 * row)
    covered = [
        [
            row <= i * scale
            and (i + 1) * scale <= row + hr[0]
            and column <= j * scale
            and (j + 1) * scale <= column + hr[1]
            for j in range(lr[1])
        ]
        for i in range(lr[0])
    ]
    if not np.any(covered):
        with pytest.raises(GridError, match="share no LR pixel"):
            pair_grids(fine, coarse)
        return
    pair = pair_grids(fine, coarse)
    assert pair.scale == scale
    rows, columns = np.nonzero(covered)
    assert pair.lr == (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    for part, coarse_part, start in zip(pair.hr, pair.lr, (row, column), strict=True):
        assert part == slice(coarse_part.start * scale - start, coarse_part.stop * scale - start)


@pytest.mark.parametrize(
    ("fine", "scale"),
    [
        (grid((40, 40), x=400_005), None),  # half a pixel beside
        (grid((40, 40), y=5_000_000.3), None),  # far less than a pixel, and still beside
        (grid((40, 40), pixel=8.5), None),
        (grid((40, 40), pixel=10.02), None),
        (grid((40, 40), pixel=20.0), None),  # not finer
        (grid((40, 40), crs="EPSG:32632"), None),
        (grid((40, 40)), 4),
        (GeoBox((40, 40), Affine.translation(4e5, 5e6) * Affine.rotation(1) * Affine.scale(10, -10), UTM), None),
        (GeoBox((40, 40), Affine(10, 0, 4e5, 0, 10, 5e6 - 400), UTM), None),  # south up
    ],
)
def test_an_hr_grid_beside_the_lr_grid_is_refused_with_origins_and_remedy(fine, scale):
    coarse = grid((20, 20), pixel=20.0)
    with pytest.raises(GridError) as refused:
        pair_grids(fine, coarse, hr_name="fine.tif", lr_name="coarse.tif", scale=scale)
    message = str(refused.value)
    assert "fine.tif does not sit on the grid of coarse.tif" in message
    for affine in (fine.affine, coarse.affine):
        assert f"origin ({affine.c:.10g}, {affine.f:.10g}), pixel {affine.a:.10g}" in message
    assert f"-tr {20 / (scale or 2):g} {20 / (scale or 2):g} -te 400000 4999600 400400 5000000" in message
    assert message.endswith("-r cubic fine.tif aligned.tif")


def test_decimals_in_a_header_are_no_misfit():
    coarse = grid((500, 500), x=15.0, y=50.0, pixel=0.0001798561, crs="EPSG:4326")
    fine = grid((1000, 1000), x=15.000000000001, y=50.0, pixel=0.00008992805, crs="EPSG:4326")
    assert pair_grids(fine, coarse).scale == 2


# Any two TorchGeo datasets


@pytest.fixture
def folders(make_raster, tmp_path):
    """Folders of two LR and two HR coordinate files; HR reaches less far than LR and starts beside it."""
    for place, left in (("a", 0), ("b", 300)):
        for name, height, width, top, side, step in (("lr", 40, 40, 0, 0, 2), ("hr", 60, 70, 4, 6, 1)):
            (tmp_path / name).mkdir(exist_ok=True)
            rows, columns = coordinate_raster(height, width).array
            dn = np.stack([rows * step + top, columns * step + side + left]) + 1000
            if name == "hr":
                dn[:, 20:24, 30:36] = 0
            corner = 400_000 + 10 * (left + side), 5_000_000 - 10 * top
            transform = Affine(10 * step, 0, corner[0], 0, -10 * step, corner[1])
            make_raster(dn, name=f"{name}/{place}.tif", dtype="uint16", nodata=0, transform=transform)
    return tmp_path / "lr", tmp_path / "hr"


def datasets(folders):
    return [RasterDataset(str(folder)) for folder in folders]


@pytest.mark.parametrize("radiometry", [None, Radiometry(scale=1e-4, nodata=0)])
def test_any_two_raster_datasets_are_a_pair(folders, radiometry):
    lr, hr = datasets(folders)
    pairs = TorchGeoPairs(lr, hr, scale=2, radiometry=radiometry)
    assert len(pairs) == 2
    assert pairs.res == (20, 20)
    assert hr.res == (10, 10), "a member was changed"
    torch.manual_seed(1)
    seen_invalid = False
    for sampler in (RandomGeoSampler(pairs, size=8, length=30), GridGeoSampler(pairs, size=8, stride=5)):
        for batch in DataLoader(pairs, sampler=sampler, batch_size=2):
            assert batch["lr"].shape[1:] == (2, 8, 8)
            assert batch["hr"].shape[1:] == (2, 16, 16)
            valid = batch["valid"] if radiometry else (batch["hr"] > 0).all(dim=1)
            known = batch["lr_valid"] if radiometry else (batch["lr"] > 0).all(dim=1)
            both = (valid[:, ::2, ::2] & known)[:, None].expand(-1, 2, -1, -1)
            assert torch.equal(batch["hr"][:, :, ::2, ::2][both], batch["lr"][both])
            seen_invalid |= bool((~valid).any())
            if radiometry:
                assert (batch["hr"].movedim(1, -1)[~valid] == 0).all()
                assert batch["lr"].max() < 1
    assert seen_invalid


def test_a_query_between_pixels_goes_to_the_nearest_lr_pixel(folders):
    pairs = TorchGeoPairs(*datasets(folders), scale=2)
    x, y = 400_000 + 207, 5_000_000 - 300 + 4
    sample = pairs[x : x + 160, y : y + 160]
    assert (sample["lr"][:, 0, 0] == torch.tensor([1014, 1020])).all()
    assert torch.equal(sample["hr"][:, ::2, ::2], sample["lr"])
    with pytest.raises(IndexError, match="lies outside the pairs"):
        pairs[x - 9000 : x - 8000, y : y + 160]


def test_datasets_that_torchgeo_would_resample_are_refused(folders, make_raster, tmp_path):
    lr, hr = datasets(folders)
    with pytest.raises(GridError, match=r"does not sit on the grid of the LR image \(scale 4\)"):
        TorchGeoPairs(lr, hr, scale=4)
    (tmp_path / "odd").mkdir()
    beside = Affine(10, 0, 400_105, 0, -10, 5_000_000)
    make_raster(np.ones((2, 40, 40)), name="odd/a.tif", dtype="uint16", transform=beside)
    with pytest.raises(GridError, match=r"origin \(400105, 5000000\).*\n.*origin \(400000, 5000000\)"):
        TorchGeoPairs(lr, RasterDataset(str(tmp_path / "odd")), scale=2)
    (tmp_path / "far").mkdir()
    make_raster(
        np.ones((2, 40, 40)), name="far/a.tif", dtype="uint16", transform=Affine(10, 0, 900_000, 0, -10, 5_000_000)
    )
    with pytest.raises(GridError, match="show no place at the same time"):
        TorchGeoPairs(lr, RasterDataset(str(tmp_path / "far")), scale=2)
