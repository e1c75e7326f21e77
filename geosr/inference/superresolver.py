"""A model on a device: reflectance in, sharper reflectance out."""

import hashlib
import logging
import threading
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from safetensors.torch import save
from torch import Tensor

from geosr.errors import ModelError, UsageError, did_you_mean
from geosr.grid import finer, flipped, reversed_axes, upsample_mask
from geosr.inference.blend import ramp
from geosr.inference.coarse import require_blocks
from geosr.inference.ensemble import Answer, mean_and_spread
from geosr.inference.fill import fill_distance, fill_invalid
from geosr.io.plausibility import HIGHEST
from geosr.io.raster import Raster
from geosr.models import Model, blend_models, find_weights
from geosr.models import load_model as load_weights
from geosr.models.calibration import Calibration
from geosr.models.hardware import FreedMemory, keep_freed_memory, native_bf16, pick_device, subnormals_flushed
from geosr.models.noise import TakesNoise
from geosr.models.onnx import OnnxNetwork, settle
from geosr.models.orientation import self_ensemble
from geosr.sensors import canonical_name

log = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16", "fp16"]
CONFIDENT = 8
"""Samples of a model that takes noise, where its confidence is asked for and no number of them."""
_TURNS: defaultdict[torch.device, threading.Lock] = defaultdict(threading.Lock)
"""Of each device, whose turn it is: two networks at once would share its memory, and be no faster."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class SuperResolver:
    """A model, the device that it runs on and the precision of its convolutions.

    Args:
        model: The model; it is moved to the device.
        device: ``auto`` (CUDA, else MPS, else CPU) or a torch device.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 where the hardware multiplies it, else fp32. The
            interpolation, the sum and the consistency layer are fp32 in any case, and an ONNX file is altogether.
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
        if isinstance(model.network, OnnxNetwork):
            device, precision = settle(device, precision)
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
    def __call__(self, lr: Tensor, *, seed: int | None = None, origins: Tensor | None = None) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale), float32, of LR reflectance (batch, band, y, x), no NaN.

        Threads take turns on a device. Where it runs out of memory the batch is halved, then the image, and the work
        goes on. Halves of a model that cannot be tiled exactly fade into each other.

        Args:
            lr: LR reflectance.
            seed: The member of the ensemble of a model that takes noise; None is the noise-free image.
            origins: Row and column in the scene of each image's first pixel, int64 (batch, 2), for the noise; 0, 0 if
                left out.

        Raises:
            UsageError: It is no tensor of reflectance of the model's bands.
        """
        self._require_reflectance(lr)
        if origins is None:
            origins = torch.zeros(len(lr), 2, dtype=torch.int64)
        try:
            with _TURNS[self.device], subnormals_flushed():
                lr_device = lr.to(self.device, torch.float32, memory_format=torch.channels_last)
                with torch.autocast(self.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32"):
                    sr = self.model(lr_device, *self._noise(lr, seed, origins)).float().cpu()
                if self.device.type == "cpu":
                    self._freed.release()
                return sr
        except torch.OutOfMemoryError:
            pass  # outside the handler, the failed attempt's tensors are free
        return self._in_halves(lr, seed, origins)

    def _require_reflectance(self, lr: Tensor) -> None:
        """Fail where the input of a call is no tensor of the model's bands."""
        wanted = (
            f"a float tensor (batch, {len(self.spec.bands)} bands, y, x): {' '.join(self.spec.bands)} as reflectance"
        )
        if not isinstance(lr, Tensor):
            raise UsageError(f"model {self.spec.name!r} takes {wanted}, not {_described(lr)}; use torch.from_numpy")
        if lr.ndim != 4 or lr.shape[1] != len(self.spec.bands) or not lr.is_floating_point() or not lr.numel():
            raise UsageError(f"model {self.spec.name!r} takes {wanted}, not {lr.dtype} {tuple(lr.shape)}")

    def _noise(self, lr: Tensor, seed: int | None, origins: Tensor) -> tuple[Tensor, ...]:
        """What the model gets besides ``lr``: the noise of a member, or nothing."""
        if seed is None:
            return ()
        return (self._noisy().noise(seed, origins.to(self.device), height=lr.shape[2], width=lr.shape[3]),)

    def _noisy(self) -> TakesNoise:
        """The network, if it takes noise, else an error that says so."""
        if not isinstance(self.model.network, TakesNoise):
            raise UsageError(
                f"model {self.spec.name!r} takes no noise, so it has one answer: leave out samples and seed, or give a "
                "model of the architecture stochastic"
            )
        return self.model.network

    def _in_halves(self, lr: Tensor, seed: int | None, origins: Tensor) -> Tensor:
        """The same result from two smaller pieces: half the batch each, or half the image each with a halo between."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(lr) > 1:
            log.warning("out of memory on %s: the batch of %d is halved", self.device, len(lr))
            halves = zip(lr.chunk(2), origins.chunk(2), strict=True)
            return torch.cat([self(half, seed=seed, origins=places) for half, places in halves])
        axis = 2 if lr.shape[2] >= lr.shape[3] else 3
        halo, scale, size = self.halo, self.spec.scale, lr.shape[axis]
        middle = size // 2 // self.spec.multiple_of * self.spec.multiple_of
        if middle <= halo:
            raise ModelError(f"{self.device} has too little memory for {tuple(lr.shape[2:])} pixels; try --device cpu")
        log.warning("out of memory on %s: the tile of %d x %d pixels is halved", self.device, *lr.shape[2:])
        start = middle - halo
        further = origins + start * torch.tensor([axis == 2, axis == 3])
        first = self(lr.narrow(axis, 0, middle + halo), seed=seed, origins=origins)
        second = self(lr.narrow(axis, start, size - start), seed=seed, origins=further)
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

    def seeds(self, samples: int | None, seed: int | None) -> range:
        """The members of an ensemble: seeds from ``seed`` (None: 0) on, ``samples`` of them; none where both are None.

        Raises:
            UsageError: The model takes no noise, or the numbers are not allowed.
        """
        if samples is None and seed is None:
            return range(0)
        first, count = seed or 0, 1 if samples is None else samples
        if count < 1 or not 0 <= first < 2**32:
            raise UsageError(f"{count} samples from seed {first}: give at least 1, and a seed from 0 to 4294967295")
        self._noisy()
        return range(first, first + count)

    def answer(
        self, *, samples: int | None = None, seed: int | None = None, tta: bool = False, confidence: bool = False
    ) -> Answer:
        """What the model is to give, checked; the arguments are those of `superresolve`.

        Raises:
            UsageError: The model takes no noise, the numbers are not allowed, or the two do not go together.
            ModelError: Its confidence is asked for, and its weights hold no calibration.
        """
        noisy = isinstance(self.model.network, TakesNoise)
        if confidence and noisy and samples is None:
            samples = CONFIDENT
        seeds = self.seeds(samples, seed)
        if tta and seeds:
            raise UsageError(
                "noise belongs to places of the scene and is not turned with it: give tta without samples, seed and, "
                f"since model {self.spec.name!r} takes noise, confidence"
            )
        if confidence and noisy and len(seeds) < 2:
            raise UsageError(f"confidence is the spread of at least 2 samples; {len(seeds)} is asked for")
        error = confidence and not noisy
        if error:
            Calibration.of(self.spec)
        return Answer(seeds, tta, error)

    def context(self, answer: Answer) -> int:
        """LR pixels to each side that an answer depends on: the halo and, of an error, its window; else the halo."""
        if not answer.error or self.spec.tiling == "approximate":  # where a blend hides what a window makes of an edge
            return self.halo
        return Calibration.of(self.spec).context(self.halo, self.spec.scale)

    def ensemble(self, lr: Tensor, answer: Answer, *, origins: Tensor | None = None) -> Tensor:
        """SR reflectance (batch, band, y * scale, x * scale), and what follows it as further bands.

        Args:
            lr: LR reflectance (batch, band, y, x), no NaN.
            answer: What is asked, as `answer` gives it.
            origins: As for a call.
        """
        if answer.seeds:
            return mean_and_spread(self(lr, seed=seed, origins=origins) for seed in answer.seeds)
        if answer.tta:
            sr = self_ensemble(self, lr, scale=self.spec.scale, multiple_of=self.spec.multiple_of)
        else:
            sr = self(lr)
        return torch.cat([sr, Calibration.of(self.spec).expected_error(sr, lr)], dim=1) if answer.error else sr

    def require_finite(
        self,
        sr: NDArray[np.float32],
        lr: NDArray[np.float32],
        valid: NDArray[np.bool_],
        *,
        origin: Sequence[int] = (0, 0),
    ) -> None:
        """Fail where the network makes NaN or infinite values of valid input: nobody would know them from nodata.

        Args:
            sr: What it made (band, y * scale, x * scale).
            lr: What it was given (band, y, x).
            valid: The input's mask (y, x).
            origin: Row and column of the input's first pixel in its scene.

        Raises:
            ModelError: It does; the message names the first such pixel.
        """
        if torch.from_numpy(sr).sum().isfinite():  # one pass, and most often all that is needed
            return
        scale = self.spec.scale
        odd = ~np.isfinite(sr).all(axis=0)
        odd = odd.reshape(valid.shape[0], scale, valid.shape[1], scale).any(axis=(1, 3)) & valid
        if not odd.any():
            return
        row, column = (int(place) for place in np.argwhere(odd)[0])
        low, high = float(lr[:, row, column].min()), float(lr[:, row, column].max())
        if self.precision != "fp32":
            remedy = f"it was computed in {self.precision}, whose range may be too small: try precision fp32"
        elif max(-low, high) > HIGHEST:
            remedy = "no reflectance is so large: say which value is nodata, or which scale the input has"
        else:
            remedy = "its weights may be damaged, or its training diverged: take other weights"
        raise ModelError(
            f"model {self.spec.name!r} makes values that are not finite of {int(odd.sum())} valid pixels, the first "
            f"in row {origin[0] + row}, column {origin[1] + column} of the input, where reflectance is from {low:.3g} "
            f"to {high:.3g}; {remedy}"
        )

    def superresolve(
        self,
        raster: Raster,
        *,
        samples: int | None = None,
        seed: int | None = None,
        tta: bool = False,
        confidence: bool = False,
        origin: tuple[int, int] = (0, 0),
    ) -> Raster:
        """The raster on the ``scale`` times finer grid, same outline, units and mask; in one piece, in memory.

        Its bands are those of the raster that the model has, in the raster's order and by its names.

        Of a model that takes noise, ``samples`` members may be asked for: each band is their mean then, and bands named
        ``B02_spread`` follow, with their standard deviation (reflectance); see `mean_and_spread` for what that is. Of
        another model, ``confidence`` gives bands named ``B02_error``, its expected absolute error (reflectance); see
        `geosr.models.calibration.Calibration` for what that is.

        Args:
            raster: Reflectance that holds at least the model's bands.
            samples: Members of the ensemble; 1 is that of ``seed``. Without samples and seed: the noise-free image.
            seed: The first member; the others have the seeds after it.
            tta: Mean of the eight orientations of the input (D4 self-ensemble), in about eight times the time.
            confidence: Further bands that say how sure the model is: the spread of 8 samples, or the expected error.
            origin: Row and column of the raster's north-western pixel in its scene, which the noise belongs to.

        Raises:
            ModelError: A band is missing, or the calibration for ``confidence``.
            UsageError: It is no raster, or there are samples or a seed, and the model takes no noise.
        """
        if not isinstance(raster, Raster):
            raise UsageError(
                f"superresolve takes a Raster (reflectance with its bands, grid and mask), not {_described(raster)}; "
                "geosr.open_scene(path).read() gives one, geosr.predict(path, out) writes files, xarray objects have "
                f".geosr.superresolve({self.spec.name!r}), and a tensor of reflectance (batch, band, y, x) goes into a "
                "call of the model itself"
            )
        answer = self.answer(samples=samples, seed=seed, tta=tta, confidence=confidence)
        places = self._places(raster)
        flips = self.flips(raster.geobox)
        lr, seen = flipped(raster.array[places], flips), flipped(raster.valid, flips)
        require_blocks(lr, seen, self.spec)
        filled = fill_invalid(lr, seen, distance=fill_distance(self.context(answer)))
        sr = self.ensemble(torch.from_numpy(filled)[None], answer, origins=torch.tensor([origin]))[0].numpy()
        self.require_finite(sr, filled, seen, origin=origin)
        outputs = places[len(self.spec.guide) :]
        sr = flipped(sr, flips)[list(answer.planes(outputs))]
        valid = upsample_mask(raster.valid, self.spec.scale)
        sr[:, ~valid] = np.nan
        bands = answer.bands([raster.bands[place] for place in sorted(outputs)])
        return Raster(sr, valid, finer(raster.geobox, self.spec.scale), bands, raster.radiometry)

    def flips(self, geobox: GeoBox) -> tuple[bool, bool]:
        """Whether rows, and columns, of an image on this grid are reversed for the network, which sees north up.

        So the same ground gives the same pixels, however its rows are stored. Blocks of repeated pixels begin at an
        image's first row and column: along an axis where the last is cut off, they stay as they are.
        """
        rows, columns = (
            reverse and not (self.spec.guide and side % self.spec.guide_scale)
            for reverse, side in zip(reversed_axes(geobox), geobox.shape, strict=True)
        )
        return rows, columns

    def _places(self, raster: Raster) -> list[int]:
        """Where the raster has the bands of the model."""
        places = {canonical_name(band) or band: place for place, band in enumerate(raster.bands)}
        wanted = [canonical_name(band) or band for band in self.spec.bands]
        if not set(wanted) <= set(places):
            raise ModelError(
                f"model {self.spec.name!r} needs {' '.join(self.spec.bands)}; the raster has {' '.join(raster.bands)}"
            )
        return [places[band] for band in wanted]


def load_model(
    name: str | Path,
    *,
    blend: tuple[str | Path, float] | None = None,
    device: str = "auto",
    precision: str = "auto",
    trust: str | Sequence[str] = (),
) -> SuperResolver:
    """A model, ready to use: a shipped one by name, that of a file or of a run's folder, or one on the hub.

    What a name may be, `geosr.models.find_weights` says.

    >>> load_model("s2-rgbn-x4").spec.scale
    4

    Args:
        name: The model.
        blend: Another model of the same network, and its share of the weights: see `geosr.models.blend_models`.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        trust: Modules and packages whose code may run for weights of a class of one's own: ``("package.module",)``. To
            load such weights imports the class, and only these names allow that; never for a file on the hub.

    Raises:
        ModelError: There is no such model, it is damaged or asks for code that is not trusted, or the other is another
            network.
    """
    weights = find_weights(name)
    model = load_weights(weights, trust=trust)
    if blend is None:
        return SuperResolver(model, device=device, precision=precision, weights_hash=weights.sha256)
    other, share = blend
    mixed = blend_models(model, load_weights(other, trust=trust), share)
    return SuperResolver(mixed, device=device, precision=precision)


def _described(value: object) -> str:
    """What a value is, for messages: its type and, of arrays, type of number and shape."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    array = "" if shape is None or dtype is None else f" ({dtype}, {tuple(shape)})"
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}{array}".removeprefix("builtins.")


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
            torch.zeros(1, device=picked).cpu()  # the device "meta" has no values to give back
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); try auto or cpu"
        ) from error
    return picked
