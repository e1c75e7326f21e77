"""A model card, Markdown: what the weights say of themselves, and what `geosr.models.measured` has of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from geosr.models import WeightsFile

ROOT = Path(__file__).resolve().parents[1]

CARD = """# {name}

{bands} at x{scale}, made for pixels of {gsd:g} m: {purpose}. {parameters:,} parameters.
Licence {licence}; {attribution}.

{pictures}

| fact | value |
| --- | --- |
| architecture | `{architecture}` {arguments} |
| tiling | {tiling}, halo {halo} LR pixels |
| degradation | {degradation} |
| consistency layer | {consistency} |
| weights | {size:.2f} MB, SHA-256 `{sha256}` |
| training | {training} |
| validation at its end | {validation} |
| speed | {speed} |

## Limits

{limits}

## Quality on scenes that it was not trained on

{quality}

{explanation}

Measured on {date} with geosr {geosr} and torch {torch}: `make models-report`. The figures are also in
[{name}.json](../../geosr/weights/{name}.json), which `geosr models show {name}` reads.

## Data

{data}

Licences are those of the places that the files came from; the pixels are Copernicus data, free and open, where nothing
else is said. {excluded}

## Configuration

<details><summary>As it was trained{config_path}</summary>

```yaml
{config}
```

</details>
"""

PURPOSES = {
    "standard": "a measurement, as near to the truth as it can be",
    "fast": "large areas on CPUs",
    "detail": "detail for the eye",
    "guided": "the 20 m bands, guided by the 10 m bands",
}

LIMITS = {
    "pairs": (
        "It learned to undo one degradation, Gaussian blur and averaging, from {coarse:g} m to {gsd:g} m. No real "
        "pairs of {gsd:g} m and {fine:g} m images were there to learn from: applied to images of {gsd:g} m it takes"
        " the step to {fine:g} m to look the same. What the output shows below {gsd:g} m is the most plausible "
        "continuation of what the sensor measured, not an observation. The figures below are of the step from "
        "{coarse:g} m to {gsd:g} m, where the truth is known, not of the one that the model is for."
    ),
    "aerial": (
        "It also saw aerial imagery, degraded to {gsd:g} m. That is another sensor, not half of a pair with Sentinel-2."
    ),
    "consistency": (
        "The consistency layer sees to it that the output, degraded again, is the input. It does not see to it that"
        " a detail is real."
    ),
    "measures": (
        "It leaves out what it cannot know rather than inventing texture: fine detail is weaker in its output than "
        "in reality."
    ),
    "fast": "It is smaller than `{standard}` and less good; where time does not matter, take that.",
    "invents": (
        "**It invents.** It was trained against a discriminator to give detail the strength that it has in real "
        "images. Where the input does not decide what is there, it draws what could be: it may be wrong, and "
        "another training would draw something else. It is for looking at. Do not measure, count or map what only "
        "it shows; take `{standard}` for that."
    ),
    "guided": (
        "The detail comes from the 10 m bands: what changes only in the 20 m bands, such as moisture in the SWIR, "
        "is sharpened no better than without a guide. Misregistration between the bands, and clouds, which the "
        "detectors see one after the other, end up in the detail."
    ),
    "corrected": (
        "These weights predate a correction of the training data: the files in `{folder}/`, {trained} of the {of} "
        "training scenes, were 8-bit pictures tagged as reflectance and are withdrawn; figures on scenes from there "
        "mean nothing."
    ),
    "domain": (
        "It saw the scenes that are listed below and no others: no desert, snow or high-rise city. Sensors with "
        "another point-spread function, and images that were sharpened or resampled before, are outside of what it "
        "learned."
    ),
}

WITHDRAWN = "s2_20m_grid"
"""Folder of the image collection whose scenes were no reflectance; it is gone, the first weights learned from it."""

EXPLANATIONS = {
    "guided": (
        "RMSE of bicubic interpolation in reflectance, and how much less the model's is. Wald's protocol: 20 m "
        "bands degraded to 40 m, 10 m bands to 20 m, the 20 m bands as they are the truth; eight pixels at the edge"
        " do not count. Of parana_bridge_a, whose 20 m bands were resampled to 10 m before, the truth is what they are "
        "once degraded to 20 m."
    ),
    "ten metres": (
        "Gains are PSNR over bicubic interpolation in dB, all bands, peak 1.0; back-projection learns nothing. SAM "
        "is the spectral angle in degrees, ERGAS is in per cent; consistency is the mean absolute difference "
        "between the degraded output and the input, in reflectance. Eight pixels at the edge do not count. Scenes "
        "of validation chose the checkpoint; the others were never looked at, but danube_b is the place of "
        "danube_a on another date."
    ),
    "detail": (
        " Spectrum gap: dB between the power spectra of output and truth, in the band and at the frequency, up to "
        "0.8 of Nyquist's, where they differ most. Texture: standard deviation within the flattest tenth of all "
        "blocks of 16 x 16 pixels over that of the truth; above 1, texture is invented on water and flat fields."
    ),
}


def card(weights: WeightsFile, measured: Mapping[str, Any]) -> str:
    """The model card.

    Args:
        weights: The weights file; all that it says of itself is in the card.
        measured: What `geosr.models.measured` has of it.
    """
    spec = weights.spec
    facts = spec.to_dict()
    kind, (scale, gsd) = kind_of(facts), step(facts)
    config = spec.provenance["config"]
    zoo = f"configs/zoo/{spec.name}.yaml"
    limits = limits_of(facts, kind)
    figures = measured["figures"]
    tables = (
        guided_table(figures, output_bands(facts))
        if kind == "guided"
        else scene_table(figures, validation=spec.provenance["scenes"]["val"], detail=kind == "detail")
    )
    mtf = spec.consistency_mtf
    return CARD.format(
        name=spec.name,
        bands=" ".join(output_bands(facts)),
        scale=scale,
        gsd=gsd,
        purpose=PURPOSES[kind],
        parameters=measured["parameters"],
        licence=spec.licence,
        attribution=spec.provenance["attribution"],
        pictures="\n\n".join(f"![{what}]({name})\n\n*{what}*" for name, what in measured["pictures"].items()),
        architecture=spec.architecture,
        arguments=json.dumps(spec.arguments),
        tiling=spec.tiling,
        halo=spec.halo,
        degradation=degradation(config),
        consistency="none" if mtf is None else f"PSF with MTF {mtf:g} at the LR Nyquist frequency, every band",
        size=weights.path.stat().st_size / 1e6,
        sha256=weights.sha256,
        training=training(spec.provenance),
        validation=", ".join(f"{name} {value:.5g}" for name, value in spec.quality.items()),
        speed=speed(measured),
        limits="\n".join(f"- {text}" for text in limits),
        quality=tables,
        explanation=explanation(kind) + calibration(measured),
        date=measured["date"],
        geosr=measured["geosr"],
        torch=measured["torch"],
        data=data_table(measured["data"]),
        excluded=excluded(config),
        config_path=f"; again: `geosr train --config {zoo}`" if is_of(config, ROOT / zoo) else "",
        config=yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=110).strip(),
    )


def is_of(config: Mapping[str, Any], path: Path) -> bool:
    """Whether a run's configuration has all that a file says."""
    return path.is_file() and _has(config, yaml.safe_load(path.read_text("utf-8")))


def _has(config: Any, said: Any) -> bool:
    """Whether ``said`` is part of ``config``; numbers that YAML reads as text, such as 1e-3, are numbers."""
    if isinstance(said, Mapping):
        return isinstance(config, Mapping) and all(
            key in config and _has(config[key], value) for key, value in said.items()
        )
    if isinstance(said, str) and isinstance(config, float):
        with suppress(ValueError):
            return float(said) == config
    return bool(config == said)


def kind_of(facts: Mapping[str, Any]) -> str:
    """``standard``, ``fast``, ``detail`` or ``guided``."""
    return "guided" if facts.get("guide") else facts.get("variant", "standard")


def output_bands(facts: Mapping[str, Any]) -> list[str]:
    """The bands that come out of a model."""
    return [band for band in facts["bands"] if band not in facts.get("guide", ())]


def step(facts: Mapping[str, Any]) -> tuple[int, float]:
    """How many times finer the bands that come out become, and the pixels (m) that they have before."""
    coarser = facts.get("guide_scale", 1)
    return facts["scale"] * coarser, facts["gsd"] * coarser


def standard_of(name: str) -> str:
    """The model that measures what ``NAME-gan`` or ``NAME-fast`` does otherwise.

    >>> standard_of("s2-rgbn-x4-gan"), standard_of("s2-rgbn-x4")
    ('s2-rgbn-x4', 's2-rgbn-x4')
    """
    return "-".join(name.split("-")[:3])


def limits_of(facts: Mapping[str, Any], kind: str) -> list[str]:
    """What a model cannot do, one sentence or a few each."""
    scale, gsd = step(facts)
    scenes = facts["provenance"]["scenes"]["train"]
    words = {
        "gsd": gsd,
        "coarse": gsd * scale,
        "fine": gsd / scale,
        "standard": standard_of(facts["name"]),
        "folder": WITHDRAWN,
        "trained": sum(path.startswith(f"{WITHDRAWN}/") for path in scenes),
        "of": len(scenes),
    }
    said = ["pairs"]
    said += ["aerial"] * any(path.startswith("hr/") for path in scenes)
    said += ["consistency"] * (facts["consistency_mtf"] is not None)
    said += ["corrected"] * (words["trained"] > 0)
    said += {"standard": ["measures"], "fast": ["measures", "fast"], "detail": ["invents"], "guided": ["guided"]}[kind]
    return [LIMITS[name].format(**words) for name in (*said, "domain")]


def degradation(config: Mapping[str, Any]) -> str:
    """The degradation that it was trained with, in one line."""
    section = config["Degradation"]
    return f"{section['type']}: `{json.dumps(section[section['type']])}`"


def training(provenance: Mapping[str, Any]) -> str:
    """How long it was trained, and on what."""
    text = f"{provenance['step']:,} generator updates, geosr {provenance['geosr']}"
    if "seconds" in provenance:
        text += f", {provenance['seconds'] / 60:.0f} minutes"
    if "device" in provenance:
        text += f" on {provenance['device']}"
    return text


def speed(measured: Mapping[str, Any]) -> str:
    """How fast it is, and where."""
    one = measured["speed"]
    return (
        f"{one['pixels_per_second'] / 1e6:.2g} MP of input per second in {one['precision']}: {measured['machine']}, an "
        f"image of {one['side']} x {one['side']} pixels (`geosr models bench`), at a load of {one['load']:g}"
    )


def scene_table(
    figures: Mapping[str, Mapping[str, Mapping[str, Any]]], *, validation: Sequence[str] = (), detail: bool = False
) -> str:
    """Figures by scene, what needs no learning beside the model.

    Args:
        figures: Figures by scene and method.
        validation: Scenes that chose the checkpoint.
        detail: Whether spectrum and texture are shown too.
    """
    head = ["scene", "bicubic, dB", "back-projection", "model", "SAM bicubic", "SAM model", "ERGAS bicubic"]
    head += ["ERGAS model", "consistency"]
    if detail:
        head += ["spectrum gap bicubic, dB", "spectrum gap model", "texture bicubic", "texture model"]
    rows = [
        (f"{scene} (validation)" if scene in validation else scene, *_cells(one, detail=detail))
        for scene, one in figures.items()
    ]
    means = {
        method: {key: fmean(one[method][key] for one in figures.values()) for key in _MEANS}
        for method in ("bicubic", "back-projection", "model")
    }
    return table(head, [*rows, ("mean", *_cells(means, detail=detail))])


_MEANS = ("psnr", "sam", "ergas", "consistency", "spectrum_gap", "texture")


def _cells(one: Mapping[str, Mapping[str, Any]], *, detail: bool) -> list[str]:
    """The figures of a scene, written out."""
    bicubic, model = one["bicubic"], one["model"]
    cells = [
        f"{bicubic['psnr']:.2f}",
        f"{one['back-projection']['psnr'] - bicubic['psnr']:+.2f}",
        f"**{model['psnr'] - bicubic['psnr']:+.2f}**",
        *(f"{method[key]:.2f}" for key in ("sam", "ergas") for method in (bicubic, model)),
        f"{model['consistency']:.1e}",
    ]
    if detail:
        cells += [f"{method['spectrum_gap']:.1f}" for method in (bicubic, model)]
        cells += [f"{method['texture']:.2f}" for method in (bicubic, model)]
    return cells


def guided_table(figures: Mapping[str, Mapping[str, Mapping[str, Any]]], bands: Sequence[str]) -> str:
    """RMSE by scene and band against that of bicubic interpolation."""
    rows = []
    for scene, one in figures.items():
        bicubic, model = one["bicubic"]["rmse"], one["model"]["rmse"]
        less = [1 - ours / theirs for ours, theirs in zip(model, bicubic, strict=True)]
        cells = [f"{theirs:.4f}, -{100 * share:.0f} %" for theirs, share in zip(bicubic, less, strict=True)]
        rows.append((scene, *cells, f"**-{100 * fmean(less):.1f} %**"))
    return table(("scene", *bands, "mean"), rows)


def explanation(kind: str) -> str:
    """What the figures are."""
    return EXPLANATIONS[kind] if kind == "guided" else EXPLANATIONS["ten metres"] + EXPLANATIONS.get(kind, "")


def calibration(measured: Mapping[str, Any]) -> str:
    """How far the errors that ``geosr predict --confidence`` tells are those that occur."""
    if "calibration" not in measured:
        return ""
    one = measured["calibration"]
    return (
        f"\n\n`geosr predict --confidence` adds the absolute error to expect, learned on {' '.join(one['learned'])}. "
        f"On {' '.join(one['scenes'])}, which were not part of that, the picture shows what was expected and what "
        f"occurred; their rank correlation is {one['rank_correlation']:.2f}. It is a mean, not a bound."
    )


def data_table(data: Iterable[Mapping[str, str]]) -> str:
    """The scenes of training and validation."""
    head = ("scene", "for", "level", "date", "from", "licence")
    keys = ("path", "for", "level", "date", "source", "licence")
    return table(head, [[f"`{one['path']}`", *(one[key] for key in keys[1:])] for one in data])


def excluded(config: Mapping[str, Any]) -> str:
    """The windows that training left out."""
    windows = config["Data"].get("exclude", {})
    return " ".join(
        f"Left out: rows {row} to {row + height - 1}, columns {column} to {column + width - 1} of `{path}`."
        for path, (row, column, height, width) in windows.items()
    )


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(map(str, head))]
    lines += [["---"] * len(lines[0])] + [list(map(str, row)) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
