import numpy as np
import pytest
import torch
from affine import Affine
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import GridGeoSampler, RandomGeoSampler

from geosr.data.pairs import TorchGeoPairs
from geosr.errors import GridError
from geosr.radiometry import Radiometry
from geosr.testing import coordinate_raster

pytestmark = pytest.mark.filterwarnings("ignore:Use torchgeo:DeprecationWarning")


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


def test_pairs_of_several_crss_are_joined_and_never_warped(make_raster, tmp_path):
    places = {"a": ("EPSG:32618", 435_730, 4_179_460), "b": ("EPSG:32734", 396_000, 6_370_000)}
    joined = []
    for mark, (place, (crs, left, top)) in enumerate(places.items()):
        for name, side, step in (("lr", 30, 2), ("hr", 60, 1)):
            (tmp_path / place / name).mkdir(parents=True)
            rows, columns = np.indices((side, side)) * step + 1000
            dn = np.stack([rows, columns, np.full_like(rows, mark + 1)])
            transform = Affine(10 * step, 0, left, 0, -10 * step, top)
            make_raster(dn, name=f"{place}/{name}/a.tif", dtype="uint16", nodata=0, transform=transform, crs=crs)
        joined.append(TorchGeoPairs(*(RasterDataset(str(tmp_path / place / name)) for name in ("lr", "hr")), scale=2))
    both = joined[0] | joined[1]
    assert both.crs.to_epsg() == 4326
    assert [pair.crs.to_epsg() for pair in joined] == [32618, 32734], "a member was changed"
    torch.manual_seed(0)
    seen = set()
    for sampler in (RandomGeoSampler(both, size=8, length=30), GridGeoSampler(both, size=8)):
        for query in sampler:
            sample = both[query]
            lr, hr = sample["lr"], sample["hr"]
            assert (lr.shape, hr.shape) == ((3, 8, 8), (3, 16, 16))
            valid = (lr > 0).all(dim=0)
            assert torch.equal(hr[:, ::2, ::2][:, valid], lr[:, valid])
            steps = torch.from_numpy(np.indices((8, 8)) * 2)
            assert len(torch.unique((lr[0] - steps[0])[valid])) <= 1
            assert len(torch.unique((lr[1] - steps[1])[valid])) <= 1
            seen |= set(lr[2][valid].tolist())
    assert seen == {1, 2}
    with pytest.raises(GridError, match="have no place in EPSG:32618"):
        _congo(make_raster, tmp_path).crs = "EPSG:32618"


def _congo(make_raster, tmp_path):
    for name, side, step in (("lr", 10, 2), ("hr", 20, 1)):
        (tmp_path / "congo" / name).mkdir(parents=True)
        transform = Affine(10 * step, 0, 500_000, 0, -10 * step, 9_900_000)
        dn = np.ones((1, side, side))
        make_raster(dn, name=f"congo/{name}/a.tif", dtype="uint16", transform=transform, crs="EPSG:32734")
    return TorchGeoPairs(*(RasterDataset(str(tmp_path / "congo" / name)) for name in ("lr", "hr")), scale=2)
