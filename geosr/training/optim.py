"""Optimisers and what changes their learning rates."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from geosr.config.names import HIGHER_IS_BETTER
from geosr.config.schema import OptimizersSection, SchedulersSection

OPTIMIZERS = {"adam": Adam, "adamw": AdamW}

Network = Literal["g", "d"]
"""Generator or discriminator, as the config's keys end."""
NETWORKS: tuple[Network, Network] = ("g", "d")
KEPT = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
"""What PyTorch's rule has seen so far; its settings are those of the config, which may have changed."""


def build_optimizer(section: OptimizersSection, network: nn.Module, which: Network) -> Optimizer:
    """The optimiser of one network, with weight decay on its kernels only."""
    rate, decay = (
        (section.optim_g_lr, section.weight_decay_g) if which == "g" else (section.optim_d_lr, section.weight_decay_d)
    )
    beta1, beta2 = section.betas
    optimizer = OPTIMIZERS[section.name]
    return optimizer(parameter_groups(network, decay), lr=rate, betas=(beta1, beta2), eps=section.eps, fused=True)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Kernels of convolutions and dense layers with the decay; biases, norms and slopes without."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    kernels = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": kernels, "weight_decay": weight_decay}]
    return [*groups, {"params": others, "weight_decay": 0.0}] if others else groups


def set_rate(optimizer: Any, rate: float) -> None:
    """Give every parameter of the optimiser this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def is_better_higher(metric: str) -> bool:
    """Whether larger values of a logged metric are better.

    >>> is_better_higher("val_metrics/psnr"), is_better_higher("val_metrics/l1")
    (True, False)
    """
    return metric.rpartition("/")[2] in HIGHER_IS_BETTER


class Plateau:
    """A learning rate that falls when a metric stops improving: PyTorch's rule, apart from warm-up and other curves.

    The rule wants an optimiser whose rate it changes; it gets one of its own, and the rate is read from there.
    """

    def __init__(self, section: SchedulersSection, rate: float, which: Network) -> None:
        def setting(name: str) -> Any:
            return _of(section, name, which)

        self.metric: str = setting("metric")
        self._carrier = torch.optim.SGD([torch.zeros(1)], lr=rate)
        self._rule = ReduceLROnPlateau(
            self._carrier,
            mode="max" if is_better_higher(self.metric) else "min",
            patience=setting("patience"),
            factor=setting("factor"),
            cooldown=setting("cooldown"),
            min_lr=setting("min_lr"),
            threshold=setting("threshold"),
            eps=0.0,
        )

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return float(self._carrier.param_groups[0]["lr"])

    def validated(self, metrics: Mapping[str, Tensor]) -> None:
        """Take notice of a validation; one without the metric does not count."""
        if self.metric in metrics:
            self._rule.step(float(metrics[self.metric]))

    def state_dict(self) -> dict[str, Any]:
        """The rate, and how long the plateau has lasted."""
        return {"rate": self.rate} | {name: vars(self._rule)[name] for name in KEPT}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        set_rate(self._carrier, state["rate"])
        self._rule.load_state_dict({name: state[name] for name in KEPT})


def _of(section: SchedulersSection, name: str, which: Network) -> Any:
    """A network's own setting, or else the one of both."""
    own = vars(section)[f"{name}_{which}"]
    return vars(section)[name] if own is None else own


def clip(parameters: Iterable[Tensor], largest: float) -> None:
    """Shorten the gradient of all parameters together to this norm; 0 leaves it."""
    if largest:
        torch.nn.utils.clip_grad_norm_(parameters, largest)
