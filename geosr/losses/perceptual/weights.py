"""Weights that others trained: from torch's cache, from a file, or by chance."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from geosr.errors import ConfigError

log = logging.getLogger("geosr")


@dataclass(frozen=True)
class Published:
    """A file of weights."""

    name: str
    """Whose they are, such as "torchvision's VGG19"."""
    url: str
    """Where they are; the end of the file's name is the start of its SHA-256."""
    megabytes: int

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


def take(network: nn.Module, weights: str, published: Published) -> nn.Module:
    """The network with weights: it may have been built on the device ``meta``, which draws no random numbers.

    Args:
        network: Its parameters have the names that they have in the file.
        weights: ``imagenet`` (the published ones, downloaded once), a file like theirs, or ``random``, always the same.
        published: The weights that the network is known for; what the file has beyond it is left out.

    Raises:
        ConfigError: The weights cannot be had, or are another network's.
    """
    wanted = network.state_dict()
    if weights == "random":
        state = _random(wanted)
    else:
        state = _download(published) if weights == "imagenet" else _read(weights, published)
    chosen = {}
    for name, value in wanted.items():
        if name.endswith("num_batches_tracked"):  # counts batches in training, and files of some age lack it
            chosen[name] = torch.zeros((), dtype=torch.long)
        elif not isinstance(state.get(name), Tensor) or state[name].shape != value.shape:
            raise ConfigError(
                f"Training.Losses.perceptual_weights ({weights}) are not those of {published.name}: their {name!r} is "
                f"missing or has another shape; get them from {published.url}"
            )
        else:
            chosen[name] = state[name].float()
    network.load_state_dict(chosen, assign=True)
    return network


def packaged(file: str) -> Mapping[str, Tensor]:
    """The small tensors in a file that torchmetrics brings along.

    Raises:
        ConfigError: It is not there.
    """
    package = find_spec("torchmetrics")
    path = Path(str(package and package.origin)).parent / file
    if not path.is_file():
        raise ConfigError(
            f"this perceptual loss needs {file} of torchmetrics 1.7 or later; pip install 'geosr[train]', or take "
            "Training.Losses.perceptual_metric=vgg"
        )
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value.detach() for name, value in state.items()}


def _random(wanted: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights by chance, the same every time; the variance of what passes a convolution and its ReLU stays (He)."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in wanted.items():
        if value.ndim == 4:
            spread: float = (2 / value[0].numel()) ** 0.5
            state[name] = torch.randn(value.shape, generator=generator) * spread
        else:  # a normalisation changes nothing, a bias is 0
            state[name] = torch.full(value.shape, float(name.endswith((".weight", ".running_var"))))
    return state


def _download(published: Published) -> Mapping[str, Tensor]:
    """The published weights; from torch's cache when they are there."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / published.file
    if not file.exists():
        log.info("downloading %s (%d MB) to %s", published.url, published.megabytes, file)
    try:
        return torch.hub.load_state_dict_from_url(
            published.url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"the perceptual loss needs the weights of {published.name}, and {published.url} cannot be had: {error}\n"
            f"  where there is a network:  curl -LO {published.url}\n"
            f"  and then:                  Training.Losses.perceptual_weights=PATH/{published.file}"
        ) from error


def _read(path: str, published: Published) -> Mapping[str, Tensor]:
    """State of a network in a file of torch.save."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise ConfigError(
            f"Training.Losses.perceptual_weights is {path!r}, which is neither imagenet nor random, and cannot be read "
            f"as a file of the weights of {published.name}: {error}"
        ) from error
    return state if isinstance(state, Mapping) else {}
