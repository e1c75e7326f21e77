"""What a prediction has finished, on disk, so that a killed run continues where it was."""

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from geosr.errors import OutputError
from geosr.io.cog import Block, BlockFile
from geosr.io.work import locked_folder


class Journal:
    """The work folder beside the target: compressed blocks, and one line for each finished tile.

    A tile counts when its line is complete and its blocks are as they were written, so neither order of a crash can
    pass off half a tile as whole. Only one process at a time may hold the folder.

    Args:
        target: The file that the run will end with.
        job: Everything that the pixels depend on. Work of another job is thrown away.
        restart: Throw away the work of the same job, too.

    Raises:
        OutputError: The folder cannot be made, or another process works in it.
    """

    def __init__(self, target: Path, job: Mapping[str, Any], *, restart: bool = False) -> None:
        self.blocks: dict[int, Block] = {}
        self.tiles: set[int] = set()
        self._files = ExitStack()
        try:
            self.folder = self._files.enter_context(locked_folder(target))
            self._resume(json.dumps({"job": dict(job)}, sort_keys=True), restart=restart)
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write beside {target}: {error.strerror}") from error

    def _resume(self, header: str, *, restart: bool) -> None:
        """Open the files, with what an earlier run of the same job left in them."""
        lines_path = self.folder / "journal.jsonl"
        lines = [] if restart or not lines_path.exists() else lines_path.read_text(errors="replace").splitlines()
        known = lines[1:] if lines and lines[0] == header else []
        data = self.folder / "blocks"
        kept = [line for line in known if self._take(line, data)] if data.exists() else []
        end = max((block.offset + block.length for block in self.blocks.values()), default=0)
        self.file = BlockFile(data, size=end)
        self._files.callback(self.file.close)
        self._lines = self._files.enter_context(lines_path.open("w"))
        self._lines.write("".join(line + "\n" for line in [header, *kept]))
        self._lines.flush()

    def _take(self, line: str, data: Path) -> bool:
        """Count a line's tile, if the line is complete and its blocks are intact."""
        try:
            entry = json.loads(line)
            blocks = {index: Block(*block) for index, *block in entry["blocks"]}
            with data.open("rb") as file:
                if not all(block.matches(file) for block in blocks.values()):
                    return False
            self.tiles.add(entry["tile"])
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            return False
        self.blocks.update(blocks)
        return True

    def record(self, tile: int, blocks: Mapping[int, bytes]) -> None:
        """Store the blocks of a finished tile, then its line."""
        places = {index: self.file.append(data) for index, data in blocks.items()}
        self.file.flush()
        self._lines.write(
            json.dumps({"tile": tile, "blocks": [[index, *block] for index, block in places.items()]}) + "\n"
        )
        self._lines.flush()
        self.tiles.add(tile)
        self.blocks.update(places)

    def close(self) -> None:
        """Keep the work for the next run and let others in."""
        with suppress(OSError):  # a full disk was reported when it was met; closing tries to write once more
            self._files.close()

    def remove(self) -> None:
        """The target is complete: the work folder goes."""
        self.close()
        shutil.rmtree(self.folder)
