"""A scene as the network sees it in training: degraded, on a grid of coarser pixels, in a file."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from geosr import __version__
from geosr.config.degradation import DegradationSection
from geosr.data.coarsen import coarser
from geosr.degrade import build_degradation
from geosr.degrade.masks import coarse_valid, filled
from geosr.degrade.steps import Parameters
from geosr.errors import GridError, OutputError
from geosr.files import replacing, shortened
from geosr.io.blocks import BlockFile
from geosr.io.cog import Profile, add_overviews, blocks_of, encode, verify, write_cog
from geosr.io.origins import files_of_scene
from geosr.io.raster import Raster
from geosr.io.scene import Scene
from geosr.io.targets import Target, inputs_of, require_free


class Degraded(NamedTuple):
    """A scene, what became of it, and what was drawn on the way."""

    hr: Raster
    """The scene, cut to a multiple of the scale."""
    lr: Raster
    parameters: Parameters
    """As `geosr.degrade.Degradation` returns them, for a batch of one."""


def degrade_scene(
    scene: Scene,
    out: str | PathLike[str],
    *,
    section: DegradationSection,
    scale: int,
    bands: Sequence[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Degraded:
    """Write the LR image of a scene as a COG in the scene's encoding, and return both in reflectance.

    The scene is degraded as a whole, with one draw of the parameters, so it must fit into memory: 10 bytes for each HR
    pixel and band with ``sensor``, 40 with ``high_order``. An LR pixel is invalid where one of the pixels under it is.
    Rows and columns at the lower and right edge that do not fill an LR pixel are left out.

    Args:
        scene: The HR scene.
        out: File to write.
        section: The configuration's ``Degradation``.
        scale: HR pixels per LR pixel.
        bands: Bands to degrade; by default all.
        seed: Seed of what is drawn.
        overwrite: Replace a file that exists.

    Raises:
        ConfigError: A step or a setting of the section is unknown.
        GridError: The scene is smaller than one LR pixel.
        OutputError: The file exists, is one that the scene is read from, or cannot be written.
    """
    target = Path(out)
    require_free([Target(target)], inputs_of(files_of_scene(scene)), overwrite=overwrite)
    height, width = (length // scale * scale for length in scene.geobox.shape)
    if min(height, width) == 0:
        rows, columns = scene.geobox.shape
        raise GridError(
            f"{scene.name} has {rows} x {columns} pixels; an LR pixel at scale {scale} needs {scale} x {scale}"
        )
    hr = scene.read((slice(0, height), slice(0, width)), bands)
    degradation = build_degradation(section, scale=scale, bands=hr.bands)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        image = filled(torch.from_numpy(hr.array)[None], torch.from_numpy(hr.valid)[None])
        image, parameters = degradation(image, generator=generator)
    valid = coarse_valid(torch.from_numpy(hr.valid)[None], scale)[0].numpy()
    lr = Raster(
        array=np.where(valid, image[0].numpy(), np.float32(np.nan)),
        valid=valid,
        geobox=coarser(hr.geobox, Fraction(1, scale)),
        bands=hr.bands,
        radiometry=hr.radiometry.with_nodata() if scene.may_be_invalid(bands) else hr.radiometry,
    )
    tags = {"GEOSR_VERSION": __version__, "GEOSR_SOURCE": scene.name, "GEOSR_DEGRADED": section.type}
    _write(lr, target, tags=tags, overwrite=overwrite)
    return Degraded(hr, lr, parameters)


def _write(raster: Raster, target: Path, *, tags: dict[str, str], overwrite: bool) -> None:
    """Write a raster as a COG; the target's name is given to the finished file only."""
    profile = Profile(raster.geobox, raster.bands, raster.radiometry, tags)
    digital = raster.to_digital()
    whole = (slice(0, digital.shape[1]), slice(0, digital.shape[2]))
    try:
        with (
            replacing(target, overwrite=overwrite) as finished,
            tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{shortened(target.name)}-") as folder,
        ):
            blocks = BlockFile(Path(folder) / "blocks")
            made = {
                index: blocks.append(encode(digital[:, rows, columns]))
                for index, (rows, columns) in blocks_of(whole, profile.levels[0])
            }
            blocks.flush()
            with ThreadPoolExecutor() as executor:
                levels = add_overviews(blocks, made, profile, executor)
                write_cog(finished, profile, levels, executor)
            blocks.close()
            verify(finished, profile)
    except FileExistsError as error:
        raise OutputError(f"{target} exists; give another name or allow to overwrite it") from error
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
