"""The files of a run: what it reads, what it writes, and whether the one has changed and the other is free."""

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from geosr.errors import InputError
from geosr.inference.outputs import Output, kind_of, target_of
from geosr.io.origins import stamps_of
from geosr.io.targets import Target, inputs_of, require_free, require_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFiles:
    """Everything that a prediction reads and writes, known before it begins."""

    out: str
    """What was asked for; a slash at its end means a folder."""
    preview: Path | None
    item: Path | None
    """The STAC item, beside the result."""
    inputs: frozenset[str]
    """Files and stores of this machine that are read."""
    overwrite: bool

    @classmethod
    def of(
        cls,
        out: str | os.PathLike[str],
        *,
        preview: str | os.PathLike[str] | None,
        stac: bool,
        inputs: Iterable[Any],
        overwrite: bool,
    ) -> "RunFiles":
        """The files of a run.

        Args:
            out: The result.
            preview: The picture beside it.
            stac: Whether there is a STAC item.
            inputs: Names of whatever is read; what is no name of a file is left out.
            overwrite: Replace what exists.

        Raises:
            UsageError: A name is none that a file can have.
        """
        require_name(out)
        if preview is not None:
            require_name(preview)
        named = [one for one in inputs if isinstance(one, str | os.PathLike)]
        return cls(
            os.fspath(out),
            None if preview is None else Path(os.path.abspath(preview)),
            item_of(out) if stac else None,
            frozenset(inputs_of(named)),
            overwrite,
        )

    @property
    def sidecars(self) -> list[Path]:
        """What is written beside the result."""
        return [path for path in (self.preview, self.item) if path is not None]

    def writes(self, output: Output) -> list[Path]:
        """Everything that has its name when the run is done."""
        return [*output.paths, *self.sidecars]

    def require_free(self, done: Collection[Path] = (), bands: Sequence[str] = ()) -> None:
        """Refuse a run that would lose what exists; see `geosr.io.targets.require_free`.

        Args:
            done: What an earlier run of the same job has written.
            bands: The bands of the result, once they are known.
        """
        targets = [target_of(self.out, bands), *map(Target, self.sidecars)]
        require_free(targets, self.inputs, overwrite=self.overwrite, done=done)


def item_of(out: str | os.PathLike[str]) -> Path:
    """The STAC item beside a result."""
    target = Path(os.path.abspath(out))
    return target.with_name(f"{target.name}.json") if kind_of(out) == "folder" else target.with_suffix(".json")


def forgetful(header: Mapping[str, Any], stamps: Mapping[str, str | None], *, shared: bool) -> dict[str, Any]:
    """The fingerprint of a job that is never that of an earlier run where nothing tells whether its inputs changed.

    Args:
        header: The fingerprint.
        stamps: Of each input, what changes with it; None where nothing is known.
        shared: Whether other runs share the job, and must find it the same.
    """
    unknown = [source for source, known in stamps.items() if known is None]
    if not unknown:
        return dict(header)
    if shared:
        log.warning("nothing tells whether %s changes: see to it that it does not until all is done", unknown[0])
        return dict(header)
    log.info("nothing tells whether %s changes: a run that is stopped begins anew", unknown[0])
    return {**header, "once": uuid4().hex}


def require_unchanged(stamps: Mapping[str, str | None]) -> None:
    """Refuse to publish what was made of inputs that changed meanwhile: it would be of neither image.

    Raises:
        InputError: One changed.
    """
    for source, now in stamps_of(source for source, before in stamps.items() if before is not None).items():
        if now is None and "://" in source:
            log.warning("%s does not answer any more: whether it changed is not known", source)
        elif now != stamps[source]:
            raise InputError(
                f"{source} changed while the run worked, so that a part of the result would be of the old image and a "
                "part of the new; nothing is written, and the same command begins anew"
            )
