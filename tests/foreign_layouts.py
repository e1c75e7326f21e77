"""Networks of other packages, written out by hand: their tensors by the names that they have there, and what they do.

The packages themselves are compared with by ``make test-interop``.
"""

import torch
import torch.nn.functional as F

CHANNELS, GROWTH = 6, 4


class Layers:
    """Random tensors by name, and the layers that they belong to."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.state = {}

    def conv(self, name, width_in, width_out, kernel=3, groups=1):
        fan = width_in // groups * kernel**2
        shape = (width_out, width_in // groups, kernel, kernel)
        self.state[f"{name}.weight"] = torch.randn(shape, generator=self.generator) * (1.5 / fan) ** 0.5
        self.state[f"{name}.bias"] = 0.1 * torch.randn(width_out, generator=self.generator)

    def prelu(self, name, count=1):
        self.state[f"{name}.weight"] = 0.1 + 0.3 * torch.rand(count, generator=self.generator)

    def norm(self, name):
        for part, low in (("weight", 0.5), ("running_var", 0.5), ("bias", -0.2), ("running_mean", -0.2)):
            self.state[f"{name}.{part}"] = low + torch.rand(CHANNELS, generator=self.generator)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def conv(state, features, name, **options):
    weight = state[f"{name}.weight"]
    padding = options.pop("padding", weight.shape[-1] // 2)
    return F.conv2d(features, weight, state[f"{name}.bias"], padding=padding, **options)


def prelu(state, features, name):
    slope = state[f"{name}.weight"].view(-1, 1, 1)
    return torch.where(features > 0, features, slope * features)


def leaky(features):
    return torch.where(features > 0, features, 0.2 * features)


def norm(state, features, name):
    mean, variance, gain, shift = (
        state[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (features - mean) / (variance + 1e-5).sqrt() * gain + shift


def repeat(features, factor):
    return features.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


# Real-ESRGAN and BasicSR


def rrdbnet(*, blocks=2, unshuffle=1, bands=3, seed=0):
    """RRDBNet's tensors for scale ``4 / unshuffle``."""
    made = Layers(seed)
    made.conv("conv_first", bands * unshuffle**2, CHANNELS)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for layer in range(5):
                width = CHANNELS if layer == 4 else GROWTH
                made.conv(f"body.{block}.rdb{dense}.conv{layer + 1}", CHANNELS + layer * GROWTH, width)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        made.conv(name, CHANNELS, CHANNELS)
    made.conv("conv_last", CHANNELS, bands)
    return made.state


def run_rrdbnet(state, image, *, blocks=2, unshuffle=1):
    first = conv(state, F.pixel_unshuffle(image, unshuffle) if unshuffle > 1 else image, "conv_first")
    features = first
    for block in range(blocks):
        inner = features
        for dense in (1, 2, 3):
            seen = [inner]
            for layer in range(1, 5):
                seen.append(leaky(conv(state, torch.cat(seen, 1), f"body.{block}.rdb{dense}.conv{layer}")))
            inner = inner + 0.2 * conv(state, torch.cat(seen, 1), f"body.{block}.rdb{dense}.conv5")
        features = features + 0.2 * inner
    features = first + conv(state, features, "conv_body")
    for stage in (1, 2):
        features = leaky(conv(state, repeat(features, 2), f"conv_up{stage}"))
    return conv(state, leaky(conv(state, features, "conv_hr")), "conv_last")


def first_release(state, *, blocks=2):
    """RRDBNet's tensors by the names of ESRGAN's first release, where layers are numbered."""
    numbers = {"conv_first": "0", "conv_body": f"1.sub.{blocks}", "conv_up1": "3", "conv_up2": "6", "conv_hr": "8",
               "conv_last": "10"}  # fmt: skip
    named = {}
    for name, tensor in state.items():
        *place, kind = name.split(".")
        if place[0] == "body":
            _, block, dense, layer = place
            named[f"model.1.sub.{block}.RDB{dense[-1]}.conv{layer[-1]}.0.{kind}"] = tensor
        else:
            named[f"model.{numbers[place[0]]}.{kind}"] = tensor
    return named


def compact(*, convolutions=2, scale=2, bands=3, seed=0):
    """SRVGGNetCompact's tensors."""
    made = Layers(seed)
    for layer in range(convolutions + 1):
        made.conv(f"body.{2 * layer}", CHANNELS if layer else bands, CHANNELS)
        made.prelu(f"body.{2 * layer + 1}", CHANNELS)
    made.conv(f"body.{2 * convolutions + 2}", CHANNELS, bands * scale**2)
    return made.state


def run_compact(state, image, *, convolutions=2, scale=2):
    features = image
    for layer in range(convolutions + 1):
        features = prelu(state, conv(state, features, f"body.{2 * layer}"), f"body.{2 * layer + 1}")
    detail = conv(state, features, f"body.{2 * convolutions + 2}")
    return F.pixel_shuffle(detail, scale) + repeat(image, scale)


# opensr-srgan


def srresnet(*, blocks=2, stages=1, bands=4, seed=0):
    """The tensors of opensr-srgan's SRResNet, in the class that wraps it."""
    made = Layers(seed)
    made.conv("net.conv_block1.conv_block.0", bands, CHANNELS, 9)
    made.prelu("net.conv_block1.conv_block.1")
    for block in range(blocks):
        for part in (1, 2):
            made.conv(f"net.residual_blocks.{block}.conv_block{part}.conv_block.0", CHANNELS, CHANNELS)
            made.norm(f"net.residual_blocks.{block}.conv_block{part}.conv_block.1")
        made.prelu(f"net.residual_blocks.{block}.conv_block1.conv_block.2")
    made.conv("net.conv_block2.conv_block.0", CHANNELS, CHANNELS)
    made.norm("net.conv_block2.conv_block.1")
    for stage in range(stages):
        made.conv(f"net.subpixel_convolutional_blocks.{stage}.conv", CHANNELS, 4 * CHANNELS)
        made.prelu(f"net.subpixel_convolutional_blocks.{stage}.prelu")
    made.conv("net.conv_block3.conv_block.0", CHANNELS, bands, 9)
    return made.state


def run_srresnet(state, image, *, blocks=2, stages=1):
    first = prelu(state, conv(state, image, "net.conv_block1.conv_block.0"), "net.conv_block1.conv_block.1")
    features = first
    for block in range(blocks):
        one, two = (f"net.residual_blocks.{block}.conv_block{part}.conv_block" for part in (1, 2))
        inner = prelu(state, norm(state, conv(state, features, f"{one}.0"), f"{one}.1"), f"{one}.2")
        features = features + norm(state, conv(state, inner, f"{two}.0"), f"{two}.1")
    last = conv(state, features, "net.conv_block2.conv_block.0")
    features = first + norm(state, last, "net.conv_block2.conv_block.1")
    for stage in range(stages):
        name = f"net.subpixel_convolutional_blocks.{stage}"
        features = prelu(state, F.pixel_shuffle(conv(state, features, f"{name}.conv"), 2), f"{name}.prelu")
    return torch.tanh(conv(state, features, "net.conv_block3.conv_block.0"))


def flexible(kind, *, blocks=2, stages=1, bands=4, seed=0):
    """The tensors of opensr-srgan's generator of ``res``, ``rcab``, ``rrdb`` or ``lka`` blocks."""
    made = Layers(seed)
    made.conv("head.0", bands, CHANNELS, 9)
    made.prelu("head.1")
    for block in range(blocks):
        _flexible_block(made, kind, f"body.{block}")
    made.conv("body_tail", CHANNELS, CHANNELS)
    for stage in range(stages):
        made.conv(f"upsampler.{3 * stage}", CHANNELS, 4 * CHANNELS)
        made.prelu(f"upsampler.{3 * stage + 2}")
    made.conv("tail", CHANNELS, bands, 9)
    return made.state


def _flexible_block(made, kind, name):
    first, act, last = ("body.0", "body.1", "body.2") if kind == "res" else ("conv1", "act", "conv2")
    if kind == "rrdb":
        for dense in (1, 2, 3):
            for layer in range(5):
                width = CHANNELS if layer == 4 else GROWTH
                made.conv(f"{name}.db{dense}.c{layer + 1}", CHANNELS + layer * GROWTH, width)
        return
    made.conv(f"{name}.{first}", CHANNELS, CHANNELS)
    made.prelu(f"{name}.{act}")
    made.conv(f"{name}.{last}", CHANNELS, CHANNELS)
    if kind == "rcab":
        made.conv(f"{name}.se.1", CHANNELS, 1, 1)
        made.conv(f"{name}.se.3", 1, CHANNELS, 1)
    elif kind == "lka":
        made.conv(f"{name}.lka.dw5", CHANNELS, CHANNELS, 5, groups=CHANNELS)
        made.conv(f"{name}.lka.dw7d", CHANNELS, CHANNELS, 7, groups=CHANNELS)
        made.conv(f"{name}.lka.pw", CHANNELS, CHANNELS, 1)


def run_flexible(state, image, kind, *, blocks=2, stages=1):
    first = prelu(state, conv(state, image, "head.0"), "head.1")
    features = first
    for block in range(blocks):
        features = features + 0.2 * _run_block(state, features, kind, f"body.{block}")
    return conv(state, _enlarge(state, first + conv(state, features, "body_tail"), stages), "tail")


def _run_block(state, features, kind, name):
    if kind == "rrdb":  # the dense blocks have no skip of their own
        for dense in (1, 2, 3):
            seen = [features]
            for layer in range(1, 5):
                seen.append(leaky(conv(state, torch.cat(seen, 1), f"{name}.db{dense}.c{layer}")))
            features = conv(state, torch.cat(seen, 1), f"{name}.db{dense}.c5")
        return features
    first, act, last = ("body.0", "body.1", "body.2") if kind == "res" else ("conv1", "act", "conv2")
    inner = prelu(state, conv(state, features, f"{name}.{first}"), f"{name}.{act}")
    if kind == "lka":
        near = conv(state, inner, f"{name}.lka.dw5", groups=CHANNELS)
        far = conv(state, near, f"{name}.lka.dw7d", groups=CHANNELS, dilation=3, padding=9)
        inner = inner * torch.sigmoid(conv(state, far, f"{name}.lka.pw"))
    inner = conv(state, inner, f"{name}.{last}")
    if kind == "rcab":
        squeezed = conv(state, inner.mean((2, 3), keepdim=True), f"{name}.se.1").clamp(min=0)
        inner = inner * torch.sigmoid(conv(state, squeezed, f"{name}.se.3"))
    return inner


def _enlarge(state, features, stages):
    for stage in range(stages):
        shuffled = F.pixel_shuffle(conv(state, features, f"upsampler.{3 * stage}"), 2)
        features = prelu(state, shuffled, f"upsampler.{3 * stage + 2}")
    return features


def esrgan(*, blocks=2, stages=1, bands=4, seed=0):
    """The tensors of opensr-srgan's ESRGAN generator."""
    made = Layers(seed)
    made.conv("conv_first", bands, CHANNELS)
    for block in range(blocks):
        _flexible_block(made, "rrdb", f"body.{block}")
    made.conv("conv_body", CHANNELS, CHANNELS)
    for stage in range(stages):
        made.conv(f"upsampler.{3 * stage}", CHANNELS, 4 * CHANNELS)
        made.prelu(f"upsampler.{3 * stage + 2}")
    made.conv("conv_hr", CHANNELS, CHANNELS)
    made.conv("conv_last", CHANNELS, bands)
    return made.state


def run_esrgan(state, image, *, blocks=2, stages=1, res_scale=0.2):
    first = conv(state, image, "conv_first")
    features = first
    for block in range(blocks):
        features = features + res_scale * _run_block(state, features, "rrdb", f"body.{block}")
    features = _enlarge(state, first + conv(state, features, "conv_body"), stages)
    return conv(state, leaky(conv(state, features, "conv_hr")), "conv_last")
