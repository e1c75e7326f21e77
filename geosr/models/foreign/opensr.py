"""Generators of opensr-srgan (0.1 to 0.5) by the names that it gives their tensors."""

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from geosr.errors import ModelError
from geosr.models.foreign.layout import Recognised, Rule, State, count, renamed, same_bands, shape


def _dense(match: re.Match[str]) -> str:
    """Geosr's name of a convolution of a dense block; there they are numbered from 1."""
    return f"body.{match[1]}.body.{int(match[2]) - 1}.layers.{int(match[3]) - 1}."


def _finer(match: re.Match[str]) -> str:
    """Geosr's name of a layer that enlarges; there a convolution, a shuffle and a PReLU each have a number."""
    stage, layer = divmod(int(match[1]), 3)
    return f"upsample.{stage}.{1 if layer else 0}."


_DENSE: Rule = (r"body\.(\d+)\.db(\d)\.c(\d)\.", _dense)
_UPSAMPLER: Rule = (r"upsampler\.(\d+)\.", _finer)

_SRRESNET: tuple[Rule, ...] = (
    (r"conv_block1\.conv_block\.", "head."),
    (r"residual_blocks\.(\d+)\.conv_block1\.conv_block\.", r"body.\1.body."),
    (r"residual_blocks\.(\d+)\.conv_block2\.conv_block\.0\.", r"body.\1.body.3."),
    (r"residual_blocks\.(\d+)\.conv_block2\.conv_block\.1\.", r"body.\1.body.4."),
    (r"conv_block2\.conv_block\.", "fuse."),
    (r"subpixel_convolutional_blocks\.(\d+)\.conv\.", r"upsample.\1.0."),
    (r"subpixel_convolutional_blocks\.(\d+)\.prelu\.", r"upsample.\1.1."),
    (r"conv_block3\.conv_block\.0\.", "tail."),
)
_FLEXIBLE: tuple[Rule, ...] = (
    (r"head\.", "head."),
    (r"body_tail\.", "fuse.0."),
    _UPSAMPLER,
    (r"tail\.", "tail."),
)
_BLOCKS: Mapping[str, tuple[Rule, ...]] = {
    "rcab": (
        (r"body\.(\d+)\.conv1\.", r"body.\1.body.0."),
        (r"body\.(\d+)\.act\.", r"body.\1.body.1."),
        (r"body\.(\d+)\.conv2\.", r"body.\1.body.2."),
        (r"body\.(\d+)\.se\.1\.", r"body.\1.attention.0."),
        (r"body\.(\d+)\.se\.3\.", r"body.\1.attention.2."),
    ),
    "rrdb": (_DENSE,),
    "lka": (
        (r"body\.(\d+)\.conv1\.", r"body.\1.first."),
        (r"body\.(\d+)\.act\.", r"body.\1.act."),
        (r"body\.(\d+)\.conv2\.", r"body.\1.last."),
        (r"body\.(\d+)\.lka\.dw5\.", r"body.\1.attention.0."),
        (r"body\.(\d+)\.lka\.dw7d\.", r"body.\1.attention.1."),
        (r"body\.(\d+)\.lka\.pw\.", r"body.\1.attention.2."),
    ),
    "stochastic": (
        (r"body\.(\d+)\.conv1\.", r"body.\1.first."),
        (r"body\.(\d+)\.act\.", r"body.\1.act."),
        (r"body\.(\d+)\.conv2\.", r"body.\1.last."),
        (r"body\.(\d+)\.noise_mlp\.0\.", r"body.\1.style."),
        (r"body\.(\d+)\.noise_mlp\.2\.", r"body.\1.modulation."),
    ),
    "res": ((r"body\.(\d+)\.body\.", r"body.\1.body."),),
}
"""Of each block of the flexible generator, by the architecture here."""
_HALLMARKS: Mapping[str, str] = {
    "rcab": "se",
    "rrdb": "db1",
    "lka": "lka",
    "stochastic": "noise_mlp",
    "res": "body",
}
"""What only that block has a part of the name of."""
_ESRGAN: tuple[Rule, ...] = (
    (r"conv_first\.", "head."),
    _DENSE,
    (r"conv_body\.", "fuse."),
    _UPSAMPLER,
    (r"conv_hr\.", "refine."),
    (r"conv_last\.", "tail."),
)


def recognise(state: State) -> Recognised | None:
    """The generator whose tensors these are; None where it is none of opensr-srgan's.

    Raises:
        ModelError: It is one of them, and not whole.
    """
    state = {name.removeprefix("net."): tensor for name, tensor in state.items()}
    if "conv_block1.conv_block.0.weight" in state:
        return _srresnet(state)
    if "conv_first.weight" in state and "body.0.db1.c1.weight" in state:
        return _esrgan(state)
    if "head.0.weight" in state and "body_tail.weight" in state:
        kinds = [kind for kind, part in _HALLMARKS.items() if any(name.startswith(f"body.0.{part}.") for name in state)]
        return _flexible(state, kinds[0]) if kinds else None
    return None


def _srresnet(state: State) -> Recognised:
    what = "opensr-srgan's SRResNet"
    ours = _without_idle_biases(renamed(state, _SRRESNET, what=what))
    return _stack(ours, "srresnet", what=what, arguments={"tanh": True})


def _without_idle_biases(state: State) -> dict[str, Tensor]:
    """The tensors without biases before a batch normalisation: its running mean need not have them added first."""
    changed = dict(state)
    for name, mean in state.items():
        if not name.endswith(".running_mean"):
            continue
        *place, layer, _ = name.split(".")
        bias = changed.pop(".".join([*place, str(int(layer) - 1), "bias"]), None)
        if bias is not None:
            changed[name] = mean - bias
    return changed


def _flexible(state: State, kind: str) -> Recognised:
    what = f"opensr-srgan's generator of {kind} blocks"
    ours = renamed(state, (*_BLOCKS[kind], *_FLEXIBLE), what=what)
    arguments: dict[str, object] = {"res_scale": 0.2}
    if kind == "rcab":
        arguments["reduction"] = 16
    elif kind == "rrdb":
        growth = shape(ours, "body.0.body.0.layers.0.weight", what=what)[0]
        arguments |= {"growth_channels": growth, "dense_skip": False}
    elif kind == "stochastic":
        # A dense layer on a vector of noise is a 1 x 1 convolution of an image of one pixel.
        ours = {name: tensor[..., None, None] if tensor.ndim == 2 else tensor for name, tensor in ours.items()}
        noise = shape(ours, "body.0.style.weight", what=what)[1]
        arguments |= {"noise_channels": noise, "noise_field": False}
    return _stack(ours, kind, what=what, arguments=arguments)


def _stack(ours: State, architecture: str, *, what: str, arguments: Mapping[str, object]) -> Recognised:
    """A network of `geosr.models.residual`."""
    channels, bands, _, large = shape(ours, "head.0.weight", what=what)
    same_bands(bands, shape(ours, "tail.weight", what=what)[0], what=what)
    small = [name for name, tensor in ours.items() if tensor.ndim == 4 and _ONE_SIZE.match(name)]
    side = max((ours[name].shape[-1] for name in small), default=1)
    sizes = {
        "channels": channels,
        "blocks": count(ours, r"body\.(\d+)\."),
        "large_kernel_size": large,
        "small_kernel_size": side,
        "global_skip": False,
    }
    grown = {name: _grown(ours[name], side) for name in small}
    return Recognised(what, architecture, _scale(ours), bands, {**sizes, **arguments}, {**ours, **grown})


_ONE_SIZE = re.compile(r"(fuse|upsample|body\.\d+\.(body|first|last))\.")
"""Convolutions whose kernels have one size here; there, some have 3 whatever the others have."""


def _grown(kernel: Tensor, side: int) -> Tensor:
    """The same kernel with zeros around it."""
    return F.pad(kernel, ((side - kernel.shape[-1]) // 2,) * 4)


def _esrgan(state: State) -> Recognised:
    what = "opensr-srgan's ESRGAN generator"
    ours = renamed(state, _ESRGAN, what=what)
    channels, bands = shape(ours, "head.weight", what=what)[:2]
    arguments = {
        "channels": channels,
        "blocks": count(ours, r"body\.(\d+)\."),
        "growth_channels": shape(ours, "body.0.body.0.layers.0.weight", what=what)[0],
        "res_scale": 0.2,
        "dense_skip": False,
        "upsampling": "shuffle",
        "global_skip": False,
    }
    same_bands(bands, shape(ours, "tail.weight", what=what)[0], what=what)
    return Recognised(what, "esrgan", _scale(ours), bands, arguments, ours)


def _scale(ours: State) -> int:
    return 2 ** count(ours, r"upsample\.(\d+)\.")


NORMALISATIONS: Mapping[str, tuple[float, float]] = {
    "normalise_10k": (0.0, 1.0),
    "normalise_10k_signed": (0.5, 0.5),
    "normalise_s2": (0.15, 0.15),
    "sen2_stretch": (0.0, 0.3),
    "zero_one": (0.0, 1.0),
    "zero_one_signed": (0.5, 0.5),
}
"""Mean and divisor of reflectance by ``Data.normalization``; what it cuts off beyond its range is not cut off here."""

_SAME: Mapping[str, str] = {
    **dict.fromkeys(("reflectance", "reflectance_0_1", "sentinel2", "s2"), "normalise_10k"),
    **dict.fromkeys(("reflectance_signed", "sentinel2_signed", "s2_signed"), "normalise_10k_signed"),
    **dict.fromkeys(("zero_to_one", "zero_one_range"), "zero_one"),
    **dict.fromkeys(("signed_zero_one", "minusone_one"), "zero_one_signed"),
}
"""Other words for them."""


def normalisation(config: Mapping[str, object]) -> tuple[str, float, float]:
    """``Data.normalization`` of a configuration with the mean and the divisor of reflectance that it means.

    Raises:
        ModelError: It is one that leaves the unit open, or a function of the user's own.
    """
    data = config.get("Data")
    given = data.get("normalization") if isinstance(data, Mapping) else None
    given = given.get("name", given.get("method", "custom")) if isinstance(given, Mapping) else given
    word = str("sen2_stretch" if given is None else given).strip().lower().replace("normalize", "normalise")
    word = _SAME.get(word, word)
    if word not in NORMALISATIONS:
        raise ModelError(
            f"Data.normalization {given!r} does not say which reflectance the network sees as 1 "
            f"({' '.join(NORMALISATIONS)} do); give it with --white: 1 for reflectance, 0.0001 for digital numbers"
        )
    return word, *NORMALISATIONS[word]
