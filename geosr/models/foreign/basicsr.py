"""RRDBNet and SRVGGNetCompact by the names that BasicSR, Real-ESRGAN and ESRGAN's first release give their tensors."""

import re
from math import isqrt

from geosr.errors import ModelError
from geosr.models.foreign.layout import Recognised, Rule, State, count, renamed, same_bands, shape, unknown

_DENSE = "body.{block}.body.{dense}.layers.{layer}."


def _dense(match: re.Match[str]) -> str:
    """Geosr's name of a convolution of a dense block; there they are numbered from 1."""
    return _DENSE.format(block=match[1], dense=int(match[2]) - 1, layer=int(match[3]) - 1)


def _stage(match: re.Match[str]) -> str:
    return f"upsample.{int(match[1]) - 1}."


_NEW: tuple[Rule, ...] = (
    (r"conv_first\.", "head."),
    (r"(?:body|RRDB_trunk)\.(\d+)\.(?:rdb|RDB)(\d)\.conv(\d)\.", _dense),
    (r"(?:conv_body|trunk_conv)\.", "fuse."),
    (r"(?:conv_up|upconv)(\d)\.", _stage),
    (r"(?:conv_hr|HRconv)\.", "refine."),
    (r"conv_last\.", "tail."),
)
"""BasicSR and Real-ESRGAN; after the bars, ESRGAN, BSRGAN and RealSR. The second rule is that of the dense blocks."""


def recognise(state: State) -> Recognised | None:
    """The network whose tensors these are; None where it is neither RRDBNet nor SRVGGNetCompact.

    Raises:
        ModelError: It is one of them, and not whole or not as published.
    """
    for rules in (_NEW, _old(state)):
        # Networks with more than that are variants, which spandrel may know.
        if any(re.match(rules[1][0], name) for name in state) and not unknown(state, rules):
            return _rrdbnet(state, rules)
    if all(re.fullmatch(r"body\.\d+\.(weight|bias)", name) for name in state) and "body.0.weight" in state:
        return _compact(state)
    return None


def _old(state: State) -> tuple[Rule, ...]:
    """The rules for ESRGAN's first release, whose layers have the numbers of a sequence."""
    layers = sorted({int(match[1]) for name in state if (match := re.match(r"model\.(\d+)\.(weight|bias)", name))})
    _, *stages, refine, tail = layers if len(layers) > 2 else [0, -1, -1]
    return (
        (r"model\.0\.", "head."),
        (r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", _dense),
        (r"model\.1\.sub\.\d+\.", "fuse."),
        *((rf"model\.{layer}\.", f"upsample.{number}.") for number, layer in enumerate(stages)),
        (rf"model\.{refine}\.", "refine."),
        (rf"model\.{tail}\.", "tail."),
    )


def _rrdbnet(state: State, rules: tuple[Rule, ...]) -> Recognised:
    what = "RRDBNet (ESRGAN, Real-ESRGAN)"
    ours = renamed(state, rules, what=what)
    channels, into = shape(ours, "head.weight", what=what)[:2]
    out_of = shape(ours, "tail.weight", what=what)[0]
    growth = shape(ours, _DENSE.format(block=0, dense=0, layer=0) + "weight", what=what)[0]
    finer = 2 ** count(ours, r"upsample\.(\d+)\.")
    unshuffle = isqrt(into // out_of)
    if unshuffle not in (1, 2, 4) or finer % unshuffle:
        unshuffle = 1  # a network of other bands in than out, which is refused next
    return Recognised(
        what,
        "esrgan",
        finer // unshuffle,
        same_bands(into // unshuffle**2, out_of, what=what),
        {
            "channels": channels,
            "blocks": count(ours, r"body\.(\d+)\."),
            "growth_channels": growth,
            "res_scale": 0.2,
            "unshuffle": unshuffle,
            "global_skip": False,
        },
        ours,
    )


def _compact(state: State) -> Recognised:
    what = "SRVGGNetCompact (Real-ESRGAN)"
    last = count(state, r"body\.(\d+)\.") - 1
    channels, bands = shape(state, "body.0.weight", what=what)[:2]
    if "body.1.weight" not in state:
        raise ModelError(
            f"this looks like {what} with activations that have no weights (ReLU or leaky ReLU, which of them the file "
            "does not tell); geosr's compact has PReLU, as the released networks have"
        )
    out_of = shape(state, f"body.{last}.weight", what=what)[0]
    scale = isqrt(out_of // bands)
    same_bands(bands, out_of // scale**2, what=what)
    return Recognised(
        what,
        "compact",
        scale,
        bands,
        {"channels": channels, "blocks": (last - 2) // 2, "base": "nearest"},
        dict(state),
    )
