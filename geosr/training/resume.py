"""Going on with a run: which checkpoint, whether it is whole and fits the settings, and where the training stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geosr.config import Config
from geosr.config.schema import flat
from geosr.errors import ConfigError, ModelError
from geosr.models.checkpoint import CHECKPOINT, FACTS, require_intact
from geosr.training.folder import CONFIG, find_checkpoint, other_checkpoints

SHAPING = (
    *("Data.bands", "Data.guide", "Generator.", "Discriminator.", "Optimizers.", "Training.EMA."),
    *("Training.pretrain_g_only", "Training.g_pretrain_steps", "Training.Losses.adv_loss_beta"),
)
"""Beginnings of the settings that decide which tensors a checkpoint holds."""
LISTED = 12
"""Settings at most that a message lists."""
PARTS: Mapping[str, type | tuple[type, ...]] = {
    "state_dict": Mapping, "optimizer_states": Sequence, "lr_schedulers": Sequence, "loops": Mapping,
    "callbacks": Mapping, "GeoSRDataModule": Mapping, FACTS: Mapping,
}  # fmt: skip
"""What a checkpoint of a run holds, and of which kind."""


@dataclass(frozen=True)
class Resumed:
    """A checkpoint that a run goes on with."""

    path: Path
    step: int
    """Updates of the generator that are done."""
    steps: int | None
    """Those that the run was to have when the checkpoint was made, where that is known."""
    config: Mapping[str, Any]
    """The settings then."""
    state: Mapping[str, Any]
    """All that it holds; the tensors stay in the file until they are used."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent


def read_resumed(where: str, config: Config) -> Resumed:
    """The checkpoint that ``Model.continue_training`` names, known to be whole.

    Args:
        where: ``auto``, the folder of a run, or a checkpoint.
        config: The settings from now on.

    Raises:
        ConfigError: There is no such checkpoint.
        ModelError: It is damaged, cut off, or none of a geosr run; the message names other ones of the run.
    """
    return _read_intact(find_checkpoint(where, config))


def settings_of(where: str) -> Path | Mapping[str, Any] | None:
    """The settings that the run was started with: those in its folder, else those that its checkpoint keeps.

    Args:
        where: What ``Model.continue_training`` takes.

    Returns:
        The file, or the settings themselves; None where ``where`` does not say which run is meant (``auto``).

    Raises:
        ConfigError: They name code, which only a configuration that is given may.
        ModelError: The checkpoint is damaged.
    """
    if where == "auto":
        return None
    path = Path(where) / CHECKPOINT if Path(where).is_dir() else Path(where)
    own = path.parent / CONFIG
    if own.is_file():
        return own
    if path.suffix != ".ckpt" or not path.is_file():
        return None  # what is wrong with it, `find_checkpoint` says
    settings = _read_intact(path).config
    generator = settings.get("Generator")
    if isinstance(generator, Mapping) and generator.get("class_path") is not None:
        raise ConfigError(
            f"{path.parent} has no {CONFIG}, and its checkpoint names a network of the user's own; give the run's "
            "configuration"
        )
    return settings


def _read_intact(path: Path) -> Resumed:
    try:
        require_intact(path)
        return _read(path)
    except ModelError as error:
        raise ModelError(f"{error}{_other_ways(path)}") from error


def _read(path: Path) -> Resumed:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises whatever the bytes provoke
        raise ModelError(f"{path} is no checkpoint ({str(error).strip().splitlines()[0]})") from error
    wrong = [
        name for name, kind in PARTS.items() if not isinstance(state, dict) or not isinstance(state.get(name), kind)
    ]
    facts = {} if wrong else state[FACTS]
    if not wrong and not (isinstance(facts.get("step"), int) and facts["step"] >= 0):
        wrong = [f"{FACTS}.step"]
    if not wrong and not isinstance(facts.get("config"), dict):
        wrong = [f"{FACTS}.config"]
    if wrong:
        raise ModelError(f"{path} is no checkpoint of a geosr run: it holds no {', '.join(wrong)}")
    steps = facts.get("steps", facts["config"].get("Training", {}).get("max_steps"))
    return Resumed(path, facts["step"], steps if isinstance(steps, int) else None, facts["config"], state)


def _other_ways(path: Path) -> str:
    """What else the run can go on with."""
    intact = []
    for other in other_checkpoints(path):
        try:
            require_intact(other)
            intact.append((_read(other).step, other))
        except ModelError:
            continue
    if not intact:
        return ". No other checkpoint of the run is whole: start anew"
    step, latest = max(intact)
    more = f" (also there: {' '.join(other.name for _, other in sorted(intact)[:-1])})" if len(intact) > 1 else ""
    return f". Go on from step {step:,} with --resume {latest} (Model.continue_training){more}"


def require_fit(resumed: Resumed, module: Any, config: Config) -> None:
    """Refuse to go on with a checkpoint of other networks or optimisers than the settings make.

    Args:
        resumed: The checkpoint.
        module: The Lightning module of the run.
        config: Its settings.

    Raises:
        ConfigError: They differ; the message lists the settings that do.
    """
    facts = resumed.state[FACTS]
    same = (
        _shapes(resumed.state["state_dict"]) == _shapes(module.state_dict())
        and [_groups(state) for state in resumed.state["optimizer_states"]]
        == [_groups(optimizer.state_dict()) for optimizer in module.configure_optimizers()]
        and len(facts.get("plateaus", ())) == len(module.plateaus)
    )
    if same:
        return
    now = flat(config.to_dict())
    then = flat(resumed.config)
    changed = [
        f"{key} {then.get(key)!r} there and {now.get(key)!r} here"
        for key in now.keys() | then.keys()
        if key.startswith(SHAPING) and then.get(key) != now.get(key)
    ]
    listed = "; ".join(sorted(changed)[:LISTED]) + ("; ..." if len(changed) > LISTED else "")
    own = resumed.folder / CONFIG
    way = f"give the run's own settings ({own})" if own.is_file() else "give the settings that the run was started with"
    raise ConfigError(
        f"{resumed.path} holds other networks or optimisers than these settings make"
        f"{f': {listed}' if changed else ', though no setting differs: it is of another version, or was changed'}. "
        f"To go on, {way}; to start anew from its weights, set Model.load_checkpoint"
    )


def _shapes(state: Any) -> dict[str, tuple[int, ...] | None]:
    return {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in state.items()}


def _groups(state: Any) -> list[int] | None:
    try:
        return [len(group["params"]) for group in state["param_groups"]]
    except (TypeError, KeyError, AttributeError):
        return None


def reopen(loops: dict[str, Any], *, step: int, total: int) -> None:
    """Let Lightning go on after ``step`` updates of ``total``, whatever the checkpoint says of the epoch.

    All steps of a run are one epoch for Lightning. A checkpoint of the last step says that this epoch, and with it the
    run, is over; with more steps the same epoch has more batches. A checkpoint that was made before the validation of
    its step is validated first.

    Args:
        loops: ``loops`` of a Lightning checkpoint; changed in place.
        step: Updates done.
        total: Updates of the run.
    """
    state = loops["fit_loop"]
    progress = state["epoch_loop.batch_progress"]
    validated = progress["current"]["completed"] >= progress["current"]["ready"]
    over = step >= total
    done = {"ready": step, "started": step, "processed": step, "completed": step if validated or over else step - 1}
    progress |= {"total": dict(done), "current": dict(done), "is_last_batch": False}
    # Lightning counts one up for an update whose validation is to be made, and logs that as the update itself
    state["epoch_loop.state_dict"] = {"_batches_that_stepped": step if validated or over else step - 2}
    epoch = {"ready": 1, "started": 1, "processed": int(over), "completed": 0}
    state["epoch_progress"] = {"total": dict(epoch), "current": dict(epoch)}
    begun = 0 if validated or over else 1  # what Lightning takes for a validation to be made again
    validation = {"ready": begun, "started": begun, "processed": 0, "completed": 0}
    state["epoch_loop.val_loop.batch_progress"] = {
        "total": dict(validation), "current": dict(validation), "is_last_batch": False,
    }  # fmt: skip
