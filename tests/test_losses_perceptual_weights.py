import pytest
import torch
from torch import nn

import geosr.losses.perceptual.weights as module
from geosr.errors import ConfigError
from geosr.losses.perceptual.lpips import ALEXNET
from geosr.losses.perceptual.satellite import NETWORKS
from geosr.losses.perceptual.vgg import VGG16, VGG19
from geosr.losses.perceptual.weights import Published, packaged, take

PUBLISHED = Published("somebody's network", "https://example.org/network-0123abcd.pth", 7)


def network(device="meta"):
    with torch.device(device):
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))


def state():
    made = network("cpu").state_dict()
    made["1.running_mean"] += 0.5
    return made


def same(ours, theirs):
    return all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.items())


def test_a_file_is_read_and_what_it_has_beyond_the_network_left_out(tmp_path):
    theirs = state()
    torch.save({**theirs, "fc.weight": torch.zeros(10, 8)}, tmp_path / "network.pth")
    assert same(take(network(), str(tmp_path / "network.pth"), PUBLISHED), theirs)


def test_weights_of_half_precision_are_taken_in_single(tmp_path):
    torch.save({name: value.half() for name, value in state().items()}, tmp_path / "network.pth")
    taken = take(network(), str(tmp_path / "network.pth"), PUBLISHED)
    assert {one.dtype for one in taken.parameters()} == {torch.float32}


def test_a_file_without_counts_of_batches_will_do(tmp_path):
    theirs = state()
    del theirs["1.num_batches_tracked"]
    torch.save(theirs, tmp_path / "network.pth")
    assert same(take(network(), str(tmp_path / "network.pth"), PUBLISHED), theirs)


@torch.no_grad()
def test_random_weights_keep_the_variance_of_what_passes_and_a_normalisation_does_nothing():
    taken = take(nn.Sequential(nn.Conv2d(64, 64, 3, device="meta")), "random", PUBLISHED)
    image = torch.randn(1, 64, 32, 32, generator=torch.Generator().manual_seed(1)).relu() * 2**0.5
    assert float(taken(image).square().mean()) == pytest.approx(2, rel=0.1)  # half of which the ReLU takes
    whole = take(network(), "random", PUBLISHED).eval()
    image = torch.rand(1, 3, 5, 5)
    assert torch.allclose(whole(image), whole[0](image), rtol=1e-4)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "network.pth"
    with pytest.raises(ConfigError, match=r"neither imagenet nor random.*weights of somebody's network"):
        take(network(), str(path), PUBLISHED)
    theirs = state()
    for changed in ({**theirs, "1.bias": torch.zeros(9)}, {**theirs, "1.bias": "zeros"}, [1, 2]):
        torch.save(changed, path)
        with pytest.raises(ConfigError, match=r"not those of somebody's network: their '(1.bias|0.weight)' is missing"):
            take(network(), str(path), PUBLISHED)


def test_a_pickle_is_not_unpacked(tmp_path):
    torch.save(network("cpu"), tmp_path / "network.pth")  # a whole module, which only code can make
    with pytest.raises(ConfigError, match="cannot be read"):
        take(network(), str(tmp_path / "network.pth"), PUBLISHED)


def test_published_weights_come_from_torchs_cache_or_the_network(monkeypatch, tmp_path, caplog):
    asked, theirs = [], state()

    def fetch(url, **options):
        asked.append((url, options["weights_only"], options["check_hash"]))
        return theirs

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    with caplog.at_level("INFO", "geosr"):
        taken = take(network(), "imagenet", PUBLISHED)
    assert asked == [(PUBLISHED.url, True, True)]
    assert "7 MB" in caplog.text
    assert same(taken, theirs)


def test_what_is_in_the_cache_is_not_fetched(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    theirs = state()
    torch.save(theirs, tmp_path / "checkpoints" / PUBLISHED.file)
    with caplog.at_level("INFO", "geosr"):
        assert same(take(network(), "imagenet", PUBLISHED), theirs)
    assert not caplog.text


@pytest.mark.parametrize("problem", [OSError("no route to host"), RuntimeError("invalid hash value")])
def test_a_failed_download_says_how_to_get_the_weights(monkeypatch, problem):
    def fail(url, **options):
        raise problem

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ConfigError) as caught:
        take(network(), "imagenet", PUBLISHED)
    assert str(problem) in str(caught.value)
    assert f"curl -LO {PUBLISHED.url}" in str(caught.value)
    assert "Training.Losses.perceptual_weights=PATH/network-0123abcd.pth" in str(caught.value)


def test_the_addresses_are_torchvisions():
    from torchvision.models import AlexNet_Weights, VGG16_Weights, VGG19_Weights

    ours = VGG16, VGG19, ALEXNET
    theirs = VGG16_Weights, VGG19_Weights, AlexNet_Weights
    for published, known in zip(ours, theirs, strict=True):
        assert known.IMAGENET1K_V1.url == published.url
        assert known.IMAGENET1K_V1.meta["_file_size"] == pytest.approx(published.megabytes, abs=0.5)


def test_the_addresses_are_torchgeos():
    from torchgeo.models import ResNet18_Weights, ResNet50_Weights

    for published, known in zip(NETWORKS.values(), (ResNet18_Weights, ResNet50_Weights), strict=True):
        assert known.SENTINEL2_ALL_MOCO.url == published.url


def test_what_torchmetrics_does_not_have_is_told():
    with pytest.raises(ConfigError, match=r"needs functional/none\.pth of torchmetrics 1\.7.*geosr\[train\]"):
        packaged("functional/none.pth")


def test_without_torchmetrics_it_is_told_as_well(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'geosr\[train\]'"):
        packaged("functional/image/lpips_models/alex.pth")
