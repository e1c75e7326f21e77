"""What a prediction is to do: everything that the output's pixels depend on."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard

import numpy as np

from geosr import __version__
from geosr.errors import UsageError
from geosr.grid import TilePlan, Window, aligned_core, finer, window_of_bounds
from geosr.inference.area import read_area
from geosr.inference.blend import OverlapPlan
from geosr.inference.coarse import require_sampling
from geosr.inference.ensemble import PLAIN, Answer
from geosr.inference.resident import ModelKey
from geosr.inference.superresolver import SuperResolver
from geosr.io.cog import Profile
from geosr.io.scene import Scene
from geosr.radiometry import Radiometry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A scene, or a part of it, cut into tiles; the model; and the raster that it becomes. It pickles small."""

    tiles: TilePlan
    profile: Profile
    model: ModelKey
    scale: int
    input_radiometry: Radiometry
    planes: tuple[int, ...]
    """Bands of the result, by their place in what the model gives."""
    answer: Answer = PLAIN
    """What is asked of the model."""

    @classmethod
    def plan(
        cls,
        scene: Scene,
        model: ModelKey,
        *,
        aoi: str | Sequence[float] | None,
        dtype: str | None,
        tile: int,
        answer: Answer = PLAIN,
    ) -> "Job":
        """Cut the scene, or the area of interest, into tiles of about ``tile`` LR pixels that fill whole output blocks.

        The result has the bands that the model makes, in the order and by the names of the scene.

        Raises:
            GeosrError: The area or the type cannot be had.
        """
        resolver = model.load()
        spec = resolver.spec
        require_sampling(scene, spec)
        radiometry = scene.band_radiometry(spec.bands)
        height, width = scene.geobox.shape
        area = None if aoi is None else window_of_bounds(scene.geobox, read_area(aoi))
        core = aligned_core(spec.scale, tile)
        plan = TilePlan if spec.tiling == "exact" else OverlapPlan
        flips = resolver.flips(scene.geobox)
        tiles = plan((height, width), core, resolver.context(answer), spec.multiple_of, area, flips)
        tags = provenance(resolver, answer) | {"GEOSR_SOURCE": scene.name}
        if _approximate(tiles):
            tags["GEOSR_TILING"] = f"approximate: tiles of {core} x {core} input pixels, blended over {tiles.overlap}"
        encoding = output_radiometry(radiometry, dtype)
        if encoding.nodata is None and scene.may_be_invalid(spec.bands):
            log.info("%s marks invalid pixels without nodata: the output has nodata 0, valid zeros are 1", scene.name)
            encoding = encoding.with_nodata()
        outputs = scene.select(spec.outputs)
        bands = answer.bands([scene.labels[place] for place in sorted(outputs)])
        further = dict.fromkeys(bands[len(outputs) :], spread_radiometry(encoding))
        profile = Profile(finer(scene.geobox[tiles.window], spec.scale), bands, encoding, tags, further)
        return cls(tiles, profile, model, spec.scale, radiometry, answer.planes(outputs), answer)

    @property
    def resolver(self) -> SuperResolver:
        """The model, which the first call in a process loads."""
        return self.model.load()

    @property
    def window(self) -> Window:
        """The part of the scene that is super-resolved."""
        return self.tiles.window

    @property
    def tiling(self) -> Literal["exact", "approximate"]:
        """``approximate`` where the output depends on how the scene was cut."""
        return "approximate" if _approximate(self.tiles) else "exact"

    def fingerprint(self, scene: Scene, stamps: Mapping[str, str | None]) -> dict[str, Any]:
        """What must be the same for earlier work to count.

        Args:
            scene: The scene.
            stamps: What tells whether its files have changed, as `geosr.io.origins.stamps_of` gives it.
        """
        return {
            "files": [[path, stamps[path]] for path in scene.paths],
            "mask": scene.mask and [scene.mask.dilate, *([repr(file), stamps[file.path]] for file in scene.mask.files)],
            "grid": repr(self.profile.geobox),
            "window": [[part.start, part.stop] for part in self.window],
            "core": self.tiles.core,
            "bands": list(self.profile.bands),
            "radiometry": [repr(self.input_radiometry), repr(self.profile.radiometry)],
            "tags": dict(self.profile.tags),
            "spec": self.resolver.spec.to_dict(),
            "precision": self.resolver.precision,
        }


def provenance(resolver: SuperResolver, answer: Answer) -> dict[str, str]:
    """What a result says of how it was made: tags of a file, attributes of an array."""
    return {
        "GEOSR_VERSION": __version__,
        "GEOSR_MODEL": resolver.spec.name,
        "GEOSR_WEIGHTS_SHA256": resolver.weights_hash,
        **answer.tags(),
    }


def _approximate(tiles: TilePlan) -> TypeGuard[OverlapPlan]:
    """Whether the output depends on what is read at once: one tile may be the whole scene, whatever the model."""
    return isinstance(tiles, OverlapPlan) and (len(tiles) > 1 or next(iter(tiles)).shape != tiles.shape)


def output_radiometry(radiometry: Radiometry, dtype: str | None) -> Radiometry:
    """The encoding of the output: the input's, or reflectance itself (NaN invalid) in a float type.

    Raises:
        UsageError: The type is unknown, or an integer type other than the input's.
    """
    if dtype is None or dtype == radiometry.dtype:
        return radiometry
    if dtype not in ("float32", "float64"):
        raise UsageError(
            f"--dtype {dtype} would need a new encoding; allowed are {radiometry.dtype} (as the input) and float32"
        )
    return Radiometry(scale=1.0, nodata=float("nan"), dtype=dtype)


def spread_radiometry(radiometry: Radiometry) -> Radiometry:
    """The encoding of a spread or error beside bands of this one: in its steps, from DN 0 on, or 1 where 0 is nodata.

    The bands' own offset would not do: a spread of 0 might lie below the lowest DN, or be nodata.
    """
    taken = radiometry.nodata == 0 and np.dtype(radiometry.dtype).kind in "iu"
    return replace(radiometry, offset=-radiometry.scale if taken else 0.0)
