"""Natural-image networks give in geosr what they give in spandrel; run by ``make test-interop``."""

import re

import pytest
import torch
from torch import nn

from geosr.models import load_model, save_model
from geosr.models.foreign import import_model

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("default"),  # the other packages have theirs
]


def esrgan(**sizes):
    """RRDBNet as spandrel has it, whose layers have the numbers of a sequence, as in ESRGAN's first release."""
    from spandrel.architectures.ESRGAN import ESRGAN

    return randomised(ESRGAN(**{"num_filters": 16, "num_blocks": 2, **sizes}), seed=1)


def randomised(network, *, seed):
    """The network with weights that all matter and outputs of order 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="leaky_relu")
                parameter.mul_(0.7)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def as_released(state, *, blocks):
    """RRDBNet's tensors by the names of BasicSR and Real-ESRGAN's releases."""
    names = {"model.0": "conv_first", f"model.1.sub.{blocks}": "conv_body", "model.3": "conv_up1",
             "model.6": "conv_up2", "model.8": "conv_hr", "model.10": "conv_last"}  # fmt: skip
    released = {}
    for name, tensor in state.items():
        dense = re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(weight|bias)", name)
        layer, kind = name.rsplit(".", 1)
        new = "body.{}.rdb{}.conv{}.{}".format(*dense.groups()) if dense else f"{names[layer]}.{kind}"
        released[new] = tensor
    return released


@torch.inference_mode()
def theirs(state, lr, *, white=0.4):
    """What spandrel makes of reflectance, without the cut at 0 and 1 that it ends with."""
    from spandrel import ModelLoader

    about = ModelLoader().load_from_state_dict(dict(state))
    about.model.eval()
    return about._call_fn(about.model, lr / white) * white


@torch.inference_mode()
def ours(path, lr, folder, **facts):
    """What geosr makes of reflectance, from the file that it writes."""
    imported = import_model(path, **facts)
    written = save_model(imported.model, folder / "model.safetensors").path
    return imported, load_model(written)(lr)


def assert_same(sr, expected):
    """Equal to 1e-5, where outputs are of order 1."""
    assert 0.05 < float(expected.std()) < 50, f"outputs of {float(expected.std()):.2g} would make 1e-5 say little"
    size = float(expected.abs().max())
    torch.testing.assert_close(sr / size, expected / size, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scale", "unshuffle"), [(4, None), (2, 2), (1, 4)])
@pytest.mark.parametrize("key", ["params_ema", "params", None])
def test_rrdbnet_of_real_esrgan(scale, unshuffle, key, tmp_path):
    bands = 3 * (unshuffle or 1) ** 2
    network = esrgan(in_nc=bands, out_nc=3, scale=4, shuffle_factor=unshuffle)
    state = as_released(network.state_dict(), blocks=2)
    torch.save(state if key is None else {key: state}, tmp_path / "RealESRGAN.pth")
    lr = torch.rand(2, 3, 12, 16)
    imported, sr = ours(tmp_path / "RealESRGAN.pth", lr, tmp_path)
    assert imported.model.spec.architecture == "esrgan"
    assert imported.model.spec.scale == scale
    assert imported.averaged == (key == "params_ema")
    assert_same(sr, theirs(state, lr))


@pytest.mark.parametrize("size", [(13, 15), (5, 6), (14, 9)])
def test_sizes_that_are_no_multiple_are_padded_as_there(size, tmp_path):
    state = as_released(esrgan(in_nc=12, out_nc=3, scale=4, shuffle_factor=2).state_dict(), blocks=2)
    torch.save({"params_ema": state}, tmp_path / "x2.pth")
    lr = torch.rand(1, 3, *size)
    assert_same(ours(tmp_path / "x2.pth", lr, tmp_path)[1], theirs(state, lr)[..., : 2 * size[0], : 2 * size[1]])


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_first_release_of_esrgan(scale, tmp_path):
    state = esrgan(in_nc=3, out_nc=3, scale=scale).state_dict()
    torch.save(state, tmp_path / "old.pth")
    lr = torch.rand(1, 3, 9, 10)
    imported, sr = ours(tmp_path / "old.pth", lr, tmp_path)
    assert imported.model.spec.architecture == "esrgan"
    assert_same(sr, theirs(state, lr))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_srvggnetcompact_of_real_esrgan(scale, tmp_path):
    from spandrel.architectures.Compact import Compact

    state = randomised(Compact(num_feat=24, num_conv=6, upscale=scale), seed=2).state_dict()
    torch.save({"params": state}, tmp_path / "compact.pth")
    lr = torch.rand(2, 3, 11, 14)
    imported, sr = ours(tmp_path / "compact.pth", lr, tmp_path, white=0.5)
    assert imported.model.spec.architecture == "compact"
    assert imported.model.spec.arguments["blocks"] == 6
    assert_same(sr, theirs(state, lr, white=0.5))


def others():
    """Networks that geosr has not, or has otherwise; small ones."""
    from spandrel.architectures import DAT, PLKSR, SPAN, MMRealSR, OmniSR, SwinIR

    return {
        "SPAN": lambda: SPAN.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=12, upscale=2),
        "PLKSR": lambda: PLKSR.PLKSR(dim=16, n_blocks=2, upscaling_factor=2),
        "SwinIR": lambda: SwinIR.SwinIR(
            img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=4, upscale=2,
            upsampler="pixelshuffledirect",
        ),
        "OmniSR": lambda: OmniSR.OmniSR(num_feat=16, block_num=1, res_num=1, up_scale=2),
        "DAT": lambda: DAT.DAT(
            img_size=16, embed_dim=32, split_size=[4, 4], depth=[2], num_heads=[2], upscale=2,
            upsampler="pixelshuffledirect",
        ),
        "MMRealSR": lambda: MMRealSR.MMRealSR(num_in_ch=3, num_out_ch=3, num_feat=16, num_block=1),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["SPAN", "PLKSR", "SwinIR", "OmniSR", "DAT", "MMRealSR"])
def test_other_networks_run_as_spandrel_runs_them(name, tmp_path):
    from spandrel import ModelLoader

    torch.manual_seed(3)
    state = others()[name]().state_dict()
    torch.save({"params_ema": state}, tmp_path / "net.pth")
    about = ModelLoader().load_from_state_dict(dict(state))
    lr = 0.4 * torch.rand(1, 3, 21, 27)
    imported, sr = ours(tmp_path / "net.pth", lr, tmp_path)
    assert imported.model.spec.architecture == "spandrel"
    assert imported.model.spec.tiling == "approximate"
    torch.testing.assert_close((sr / 0.4).clamp(0, 1), about(lr / 0.4), atol=1e-5, rtol=0)
