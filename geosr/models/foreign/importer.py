"""A model of geosr from a file of weights that another program wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geosr.config.opensr import BANDS as OPENSR_BANDS
from geosr.config.opensr import is_opensr, translate
from geosr.errors import ConfigError, ModelError
from geosr.models.fitting import fitted_network
from geosr.models.foreign import basicsr, opensr
from geosr.models.foreign.files import ForeignFile, read_config, read_foreign
from geosr.models.foreign.layout import Recognised
from geosr.models.model import Model
from geosr.models.spec import ModelSpec
from geosr.sensors import RGB

WHITE = 0.4
"""Reflectance that a natural-image network sees as white unless told otherwise, as the perceptual losses do."""


@dataclass(frozen=True)
class Imported:
    """A model made from somebody else's weights."""

    model: Model
    what: str
    """What the file was recognised as."""
    averaged: bool
    """Whether the averaged (EMA) weights were taken."""
    notes: tuple[str, ...]
    """What the file left open and how it was decided, one sentence each."""


def import_model(
    path: str | Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    bands: Sequence[str] | None = None,
    name: str | None = None,
    white: float | None = None,
    licence: str | None = None,
) -> Imported:
    """The model whose weights an opensr-srgan, Real-ESRGAN or BasicSR file holds, or one that spandrel knows.

    Its output is the other program's: there is no skip around the network and no consistency layer.

    Args:
        path: ``.ckpt``, ``.pth``, ``.pt`` or ``.safetensors``.
        config: opensr-srgan's configuration of the run, or its YAML file, where the weights' file does not keep it.
        bands: Names of the bands in the network's order; None takes red, green, blue, or what opensr-srgan has.
        name: The model's name; None takes the file's.
        white: Reflectance that the network sees as 1; None takes 0.4 for natural-image networks, and for
            opensr-srgan's what the configuration says.
        licence: Of the weights; None is unknown.

    Raises:
        ModelError: The file is refused, unknown or not whole; or units or bands are open.
    """
    if white is not None and not white > 0:
        raise ModelError(f"white is a reflectance of {white:g}; it must be above 0, such as {WHITE:g}")
    file = read_foreign(path)
    theirs = opensr.recognise(file.state)
    if theirs is not None:
        said = _configuration(file, config)
        decided = _opensr(theirs, said, white=white, bands=bands)
    elif config is not None:
        raise ModelError(f"{path} holds no generator of opensr-srgan, and other networks have no configuration")
    else:
        decided = _natural(file, white)
    found, names = decided.network, _bands(decided, bands)
    spec = ModelSpec(
        name=name or Path(path).stem,
        architecture=found.architecture,
        scale=found.scale,
        bands=names,
        arguments={**found.arguments, "mean": [decided.mean] * len(names), "std": [decided.std] * len(names)},
        consistency_mtf=None,
        tiling="approximate" if found.architecture == "spandrel" else "exact",
        licence=licence or "unknown",
        provenance={
            "imported_from": Path(path).name,
            "sha256": file.sha256,
            "network": found.what,
            "weights": "averaged (EMA)" if file.averaged else "as trained",
        },
    )
    model = Model(spec, _network(spec, found, path)).eval()
    return Imported(model, found.what, file.averaged, (*file.notes, *decided.notes))


@dataclass(frozen=True)
class _Decided:
    """A network with what its tensors leave open."""

    network: Recognised
    mean: float
    """Reflectance that the network sees as 0."""
    std: float
    """Reflectance that the network sees as 1 more than that."""
    bands: Mapping[int, tuple[str, ...]]
    """What its bands are, by their number, unless the user names them."""
    notes: tuple[str, ...] = ()


def _configuration(file: ForeignFile, given: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any] | None:
    """The configuration of opensr-srgan that is given, or else the one that the file keeps.

    Raises:
        ModelError: What is given is none.
    """
    if given is None:
        return file.config if file.config is not None and is_opensr(file.config) else None
    config = given if isinstance(given, Mapping) else read_config(given)
    if not is_opensr(config) or not isinstance(config.get("Model"), Mapping):
        raise ModelError("this is no configuration of opensr-srgan: it says no Model.in_bands")
    return config


def _opensr(
    found: Recognised, config: Mapping[str, Any] | None, *, white: float | None, bands: Sequence[str] | None
) -> _Decided:
    """An opensr-srgan generator with what its configuration adds."""
    notes = []
    if config is not None:
        added = _agreed(found, config, bands or OPENSR_BANDS.get(found.bands))
        found = replace(found, arguments=found.arguments | added)
    elif found.architecture == "esrgan":
        notes.append("res_scale is not in the weights: it is taken to be 0.2, as opensr-srgan does (--config)")
    if white is not None:
        return _Decided(found, 0.0, white, OPENSR_BANDS, tuple(notes))
    if config is None:
        raise ModelError(
            f"{found.what} was recognised, and the file does not say how its input was normalised; give --config "
            "with the YAML of the run, or --white: 1 where it saw reflectance (Data.normalization: normalise_10k)"
        )
    word, mean, std = opensr.normalisation(config)
    notes.append(f"reflectance is normalised as {word} does, without cutting off what lies beyond its range")
    return _Decided(found, mean, std, OPENSR_BANDS, tuple(notes))


def _natural(file: ForeignFile, white: float | None) -> _Decided:
    """A natural-image network, for which reflectance becomes brightness."""
    found = basicsr.recognise(file.state) or _spandrel(file)
    if white is not None:
        return _Decided(found, 0.0, white, {3: RGB})
    note = f"a reflectance of {WHITE:g} is taken for white (--white); what is brighter is not cut off"
    return _Decided(found, 0.0, WHITE, {3: RGB}, (note,))


_COMPARED = {
    "model_type": "architecture",
    "scaling_factor": "scale",
    "n_channels": "channels",
    "n_blocks": "blocks",
    "large_kernel_size": "large_kernel_size",
    "growth_channels": "growth_channels",
}
"""Of a configuration's Generator, what can be seen in the weights too."""


def _agreed(found: Recognised, config: Mapping[str, Any], bands: Sequence[str] | None) -> dict[str, Any]:
    """What the configuration alone says of the network: its ``res_scale``.

    Raises:
        ModelError: It is the configuration of another network.
    """
    count = config["Model"].get("in_bands")
    names = list(bands or [f"band_{number}" for number in range(1, found.bands + 1)])
    if count != found.bands:
        raise ModelError(
            f"the configuration is another network's: Model.in_bands is {count}, the weights' {found.bands}"
        )
    try:
        said, _ = translate(config, {"Data": {"bands": names}})
    except ConfigError as error:
        raise ModelError(f"the configuration is not one of opensr-srgan: {error}") from error
    seen = {"architecture": found.architecture, "scale": found.scale, **found.arguments}
    for key, fact in _COMPARED.items():
        told = said["Generator"].get(key)
        if told is not None and fact in seen and told != seen[fact]:
            raise ModelError(
                f"the configuration is another network's: Generator.{key} is {told}, the weights' {seen[fact]}"
            )
    return {"res_scale": said["Generator"]["res_scale"]} if "res_scale" in said["Generator"] else {}


def _spandrel(file: ForeignFile) -> Recognised:
    """The network as spandrel recognises it.

    Raises:
        ModelError: It does not, or its images have other than three bands.
    """
    from geosr.models.spandrel import describe

    names = " ".join(list(file.state)[:3])
    try:
        about = describe(file.state)
    except ModelError as error:
        raise ModelError(
            f"{file.path} holds no network of opensr-srgan, Real-ESRGAN or BasicSR (its tensors begin with {names}); "
            f"{error}"
        ) from error
    what = f"{about.architecture.name} (spandrel)"
    if (about.input_channels, about.output_channels) != (3, 3):
        raise ModelError(
            f"{file.path} is {what} from {about.input_channels} to {about.output_channels} channels; natural-image "
            "networks are run where they take and return red, green and blue"
        )
    size = about.size_requirements
    arguments = {"multiple_of": size.multiple_of, "smallest": max(size.minimum, 1), "square": size.square}
    state = {f"inner.{key}": value for key, value in about.model.state_dict().items()}
    found = Recognised(what, "spandrel", about.scale, 3, arguments, state)
    _assert_comes_back(found, file)
    return found


def _bands(decided: _Decided, given: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the bands.

    Raises:
        ModelError: There are others than the network takes, or its number of bands says nothing.
    """
    found = decided.network
    if given is None and found.bands in decided.bands:
        return decided.bands[found.bands]
    if given is None:
        raise ModelError(
            f"{found.what} has {found.bands} bands, and which they are the file does not say; name them in the "
            "network's order with --bands, such as --bands B04,B03,B02,B08"
        )
    if len(given) != found.bands or len(set(given)) != len(given):
        raise ModelError(f"{found.what} has {found.bands} bands; --bands names {' '.join(given)}")
    return tuple(given)


def _network(spec: ModelSpec, found: Recognised, path: str | Path) -> nn.Module:
    """The network with its weights.

    Raises:
        ModelError: Tensors are missing, not finite, or have other shapes than the others imply.
    """
    return fitted_network(spec, found.state, source=f"{path}, which looks like {found.what},")


@torch.inference_mode()
def _assert_comes_back(found: Recognised, file: ForeignFile) -> None:
    """Fail unless the network that spandrel makes of the tensors as geosr keeps them is the one of the file.

    Raises:
        ModelError: It is another.
    """
    from geosr.models.spandrel import Spandrel

    first, kept = (Spandrel(bands=found.bands, scale=found.scale, **found.arguments).eval() for _ in range(2))
    first.build(file.state)
    kept.load_state_dict(found.state)
    image = torch.rand(1, found.bands, 16, 16, generator=torch.Generator().manual_seed(0))
    if not torch.allclose(first(image), kept(image), atol=1e-5):
        raise ModelError(f"{file.path} cannot be kept: spandrel makes another network of the weights that it loaded")
