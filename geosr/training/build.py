"""The networks of a run: new ones, or those that an earlier run ended with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geosr.config.schema import Config
from geosr.data.datamodule import GeoSRDataModule
from geosr.errors import ConfigError
from geosr.models import Model, ModelSpec, find_weights, load_model
from geosr.models.checkpoint import CHECKPOINT, Checkpoint, read_checkpoint
from geosr.models.discriminators import Discriminator, build_discriminator
from geosr.models.registry import build_network, generator_arguments
from geosr.training.memory import device_of, require_memory_for_networks


@dataclass(frozen=True)
class Networks:
    """What is trained."""

    model: Model
    discriminator: Discriminator | None

    def describe(self) -> str:
        """A line for each network: what it is, and how many parameters it has."""
        lines = [f"generator: {self.model.spec.architecture}, {self.model.describe()}"]
        if self.discriminator is not None:
            parameters = sum(parameter.numel() for parameter in self.discriminator.parameters())
            lines.append(f"discriminator: {type(self.discriminator).__name__}, {parameters:,} parameters")
        return "\n".join(lines)


def build_networks(config: Config, data: GeoSRDataModule) -> Networks:
    """The generator and, where the run needs one, the discriminator: fresh, or from ``Model.load_checkpoint``.

    Raises:
        ConfigError: The checkpoint does not fit the configuration.
        ModelError: The discriminator cannot look at patches of this size.
    """
    start = None
    if config.Model.load_checkpoint is not None:
        start = read_start(config.Model.load_checkpoint, trust=_trusted(config))
    _require_memory(config, adversarial=data.schedule.adversarial)
    model = build_model(config, data, start.model if start else None)
    if not data.schedule.adversarial:
        return Networks(model, None)
    discriminator = build_discriminator(config.Discriminator, bands=len(config.Data.bands))
    with torch.no_grad():  # patches that are too small for its strides are found now, not when its phase begins
        discriminator.eval()(torch.zeros(1, discriminator.bands, data.size, data.size))
    discriminator.train()
    if start and start.discriminator:
        try:
            discriminator.load_state_dict(start.discriminator)
        except RuntimeError as error:
            raise ConfigError(
                f"the discriminator of {config.Model.load_checkpoint} is not the one of the configuration's "
                f"Discriminator section: {str(error).splitlines()[-1].strip()}"
            ) from error
    return Networks(model, discriminator)


def _require_memory(config: Config, *, adversarial: bool) -> None:
    """Refuse networks that are larger than the memory; a class of the user's own is built as it is."""
    generator, guide = config.Generator, tuple(config.Data.guide)
    networks: list[nn.Module] = []
    with torch.device("meta"):
        if generator.class_path is None:
            numbers = dict.fromkeys(("mean", "std"), [1.0] * len((*guide, *config.Data.bands)))
            networks.append(build_network(_spec(config, arguments=generator_arguments(generator) | numbers)))
        if adversarial:
            networks.append(build_discriminator(config.Discriminator, bands=len(config.Data.bands)))
    require_memory_for_networks(*networks, device=device_of(config))


def build_model(config: Config, data: GeoSRDataModule, start: Model | None = None) -> Model:
    """The model to train: its own normalisation and fresh weights, or those of ``start``."""
    spec = _spec(config, consistency_mtf=data.psf.mtf if config.Generator.consistency else None)
    if start is None:
        mean, std = data.normalisation()
        arguments = generator_arguments(config.Generator) | {"mean": mean, "std": std}
        return Model(replace(spec, arguments=arguments), trust=_trusted(config))
    for fact in ("architecture", "scale", "bands", "guide", "guide_scale"):
        theirs, ours = getattr(start.spec, fact), getattr(spec, fact)
        if theirs != ours:
            raise ConfigError(f"Model.load_checkpoint has {fact} {theirs!r}, the configuration says {ours!r}")
    model = Model(replace(spec, arguments=start.spec.arguments), trust=_trusted(config))
    model.network.load_state_dict(start.network.state_dict())
    return model


def _spec(config: Config, **facts: Any) -> ModelSpec:
    """The facts about the model that the configuration decides."""
    generator, guide = config.Generator, tuple(config.Data.guide)
    return ModelSpec(
        name=config.Model.name,
        architecture=generator.class_path or generator.model_type,
        scale=1 if guide else generator.scaling_factor,
        bands=(*guide, *config.Data.bands),
        guide=guide,
        guide_scale=generator.scaling_factor if guide else 1,
        gsd=config.Data.gsd,
        variant=config.Model.variant,  # type: ignore[arg-type]  # checked with the configuration
        licence=config.Model.licence,
        **facts,
    )


def _trusted(config: Config) -> tuple[str, ...]:
    """The module whose code runs in training: that of the class which the user's own configuration names."""
    class_path = config.Generator.class_path
    return () if class_path is None else (class_path.rpartition(".")[0],)


def read_start(where: str, *, trust: str | Sequence[str] = ()) -> Checkpoint:
    """The weights that ``Model.load_checkpoint`` names; of a run's folder those of its last checkpoint, if it has one.

    Args:
        where: What `geosr.models.find_weights` takes.
        trust: Modules and packages that may be imported for a network of the user's own.

    Raises:
        ConfigError: The file holds a model that cannot be trained any more.
        ModelError: There is nothing of that name, or it is no checkpoint of geosr.
    """
    path = Path(where) / CHECKPOINT if Path(where).is_dir() else Path(where)
    if path.suffix == ".ckpt" and path.is_file():
        return read_checkpoint(path, trust=trust)
    weights = find_weights(where)
    if not weights.trainable:
        raise ConfigError(
            f"Model.load_checkpoint is {where}, whose weights are part of a graph and cannot be trained; "
            "name the .safetensors file that it was exported from"
        )
    return Checkpoint(load_model(weights, trust=trust))
