"""``spandrel``: any of the natural-image networks that the package of that name rebuilds from their weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geosr.errors import ModelError
from geosr.models.generator import Generator
from geosr.models.padding import padded


def describe(state: Mapping[str, Tensor]) -> Any:
    """Spandrel's description of the network whose weights these are: ``spandrel.ImageModelDescriptor``.

    Raises:
        ModelError: Spandrel is not installed, does not know the network, or it does something else.
    """
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except ModuleNotFoundError as error:
        raise ModelError(f"natural-image networks need {error.name}: pip install 'geosr[natural]'") from error
    try:
        descriptor = ModelLoader(device=torch.device("cpu")).load_from_state_dict(dict(state))
    except UnsupportedModelError as error:
        raise ModelError("spandrel knows no network with tensors of these names") from error
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise ModelError(f"spandrel cannot rebuild the network: {str(error).splitlines()[0]}") from error
    if not isinstance(descriptor, ImageModelDescriptor):
        raise ModelError(f"{descriptor.architecture.name} fills holes; a model makes an image from an image alone")
    return descriptor


class Spandrel(Generator):
    """A natural-image network, which exists once its weights are loaded: they alone say what it is made of.

    Args:
        bands: Number of bands, in and out; 3 for red, green and blue.
        scale: Upsampling factor.
        multiple_of: What the network wants both sides of its input to be multiples of.
        smallest: What the network wants both sides of its input to be at least.
        square: Whether the network wants both sides of its input to be equal.
        mean: Per-band reflectance that the network sees as 0.
        std: Per-band reflectance that the network sees as 1 more than that.

    References:
        https://github.com/chaiNNer-org/spandrel
    """

    def __init__(
        self,
        *,
        bands: int,
        scale: int,
        multiple_of: int = 1,
        smallest: int = 1,
        square: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(bands=bands, scale=scale, mean=mean, std=std, global_skip=False)
        self.reach = None
        self.multiple_of, self.smallest, self.square = multiple_of, smallest, square
        self.inner: nn.Module | None = None
        self._call: Callable[[nn.Module, Tensor], Tensor] | None = None

    def build(self, state: Mapping[str, Tensor]) -> Any:
        """Make the network whose weights these are, by spandrel's names; the result is its description."""
        descriptor = describe(state)
        # Not the description itself, which cuts its output off at 0 and 1: reflectance may be brighter than white.
        self.inner, self._call = descriptor.model.train(self.training), descriptor._call_fn
        return descriptor

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        if self.inner is None:
            inner = f"{prefix}inner."
            self.build({key.removeprefix(inner): state_dict[key] for key in state_dict if key.startswith(inner)})
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def resolve(self, features: Tensor) -> Tensor:
        """The network's output for normalised input."""
        if self.inner is None or self._call is None:
            raise ModelError("a natural-image network exists once its weights are loaded; import a file of weights")
        height, width = (side * self.scale for side in features.shape[-2:])
        image = padded(features, multiple_of=self.multiple_of, smallest=self.smallest, square=self.square)
        return self._call(self.inner, image)[..., :height, :width]
