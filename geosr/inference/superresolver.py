"""A model on a device: reflectance in, sharper reflectance out."""

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from geosr.errors import ModelError, UsageError, did_you_mean
from geosr.grid import finer, upsample_mask
from geosr.inference.blend import ramp
from geosr.inference.fill import fill_invalid
from geosr.io.raster import Raster
from geosr.models import Model, find_weights
from geosr.models import load_model as load_weights
from geosr.models.hardware import FreedMemory, keep_freed_memory, native_bf16, pick_device

log = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class SuperResolver:
    """A model, the device that it runs on and the precision of its convolutions.

    Args:
        model: The model; it is moved to the device.
        device: ``auto`` (CUDA, else MPS, else CPU) or a torch device.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 where the hardware multiplies it, else fp32. The
            interpolation, the sum and the consistency layer are fp32 in any case.
        weights_hash: SHA-256 of the weights file; None hashes the weights themselves.

    Raises:
        UsageError: The device or the precision does not exist here.
    """

    def __init__(
        self, model: Model, *, device: str = "auto", precision: str = "auto", weights_hash: str | None = None
    ) -> None:
        if precision not in ("auto", *_DTYPES):
            raise UsageError(
                f"precision {precision!r} is unknown (auto {' '.join(_DTYPES)})" + did_you_mean(precision, _DTYPES)
            )
        self.device = _usable(device)
        if precision == "auto":
            precision = "bf16" if native_bf16(self.device) else "fp32"
        self.precision = precision
        if self.device.type == "cpu":
            keep_freed_memory()
        self.spec = model.spec
        self._freed = FreedMemory()
        self.weights_hash = weights_hash or _hash(model)
        self.model = model.to(self.device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def __repr__(self) -> str:
        return f"<SuperResolver {self.model.describe()} on {self.device}, {self.precision}>"

    @torch.inference_mode()
    def __call__(self, lr: Tensor) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale), float32, of LR reflectance (batch, band, y, x), no NaN.

        Where the device runs out of memory the batch is halved, then the image, and the work goes on. Halves of a model
        that cannot be tiled exactly fade into each other.
        """
        try:
            lr_device = lr.to(self.device, memory_format=torch.channels_last)
            with torch.autocast(self.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32"):
                sr = self.model(lr_device).float().cpu()
            if self.device.type == "cpu":
                self._freed.release()
            return sr
        except torch.OutOfMemoryError:
            pass  # outside the handler, the failed attempt's tensors are free
        return self._in_halves(lr)

    def _in_halves(self, lr: Tensor) -> Tensor:
        """The same result from two smaller pieces: half the batch each, or half the image each with a halo between."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(lr) > 1:
            log.warning("out of memory on %s: the batch of %d is halved", self.device, len(lr))
            return torch.cat([self(half) for half in lr.chunk(2)])
        axis = 2 if lr.shape[2] >= lr.shape[3] else 3
        halo, scale, size = self.halo, self.spec.scale, lr.shape[axis]
        middle = size // 2
        if middle <= halo:
            raise ModelError(f"{self.device} has too little memory for {tuple(lr.shape[2:])} pixels; try --device cpu")
        log.warning("out of memory on %s: the tile of %d x %d pixels is halved", self.device, *lr.shape[2:])
        start = middle - halo
        first, second = self(lr.narrow(axis, 0, middle + halo)), self(lr.narrow(axis, start, size - start))
        if self.spec.tiling == "exact":
            first = first.narrow(axis, 0, middle * scale)
            return torch.cat([first, second.narrow(axis, halo * scale, (size - middle) * scale)], axis)
        shared = 2 * halo * scale
        weight = torch.from_numpy(ramp(shared)).view(-1, *[1] * (3 - axis))
        between = torch.lerp(first.narrow(axis, start * scale, shared), second.narrow(axis, 0, shared), weight)
        rest = second.narrow(axis, shared, second.shape[axis] - shared)
        return torch.cat([first.narrow(axis, 0, start * scale), between, rest], axis)

    @property
    def halo(self) -> int:
        """LR pixels of context that the model needs."""
        assert self.spec.halo is not None  # a Model has measured it
        return self.spec.halo

    def superresolve(self, raster: Raster) -> Raster:
        """The raster on the ``scale`` times finer grid, same outline, units and mask; in one piece, in memory.

        Args:
            raster: Reflectance that holds at least the model's bands.

        Raises:
            ModelError: A band is missing.
        """
        missing = [band for band in self.spec.bands if band not in raster.bands]
        if missing:
            raise ModelError(
                f"model {self.spec.name!r} needs {' '.join(self.spec.bands)}; the raster has {' '.join(raster.bands)}"
            )
        lr = raster.array[[raster.bands.index(band) for band in self.spec.bands]]
        sr = self.superresolve_array(lr, raster.valid)
        valid = upsample_mask(raster.valid, self.spec.scale)
        sr[:, ~valid] = np.nan
        return Raster(sr, valid, finer(raster.geobox, self.spec.scale), self.spec.bands, raster.radiometry)

    def superresolve_array(self, lr: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """SR reflectance (band, y * scale, x * scale) of LR reflectance whose invalid pixels are filled first."""
        filled = fill_invalid(lr, valid, distance=fill_distance(self.halo))
        return self(torch.from_numpy(filled)[None])[0].numpy()


def fill_distance(halo: int) -> int:
    """LR pixels that invalid pixels are filled over: enough for every one that a valid pixel's output depends on."""
    return halo + halo // 2 + 1  # the corner of the halo is sqrt(2) halo away


def load_model(name: str | Path, *, device: str = "auto", precision: str = "auto") -> SuperResolver:
    """A shipped model by name, or the model of a ``.safetensors`` file, ready to use.

    >>> load_model("s2-rgbn-x4").spec.scale
    4

    Raises:
        ModelError: There is no such model.
    """
    weights = find_weights(name)
    return SuperResolver(load_weights(name), device=device, precision=precision, weights_hash=weights.sha256)


def _hash(model: Model) -> str:
    """SHA-256 of the weights as a safetensors file would hold them."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()


def _usable(device: str) -> torch.device:
    """The device, if this machine has it."""
    try:
        picked = pick_device(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); try auto or cpu"
        ) from error
    return picked
