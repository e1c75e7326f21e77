"""Zip files of strangers: the names in them, once they are known to be harmless, and their small files."""

import os
import re
import stat
import zipfile
from collections import Counter

from geosr.errors import InputError

MAX_ENTRIES = 100_000
"""Entries that an archive may have; the largest products, of many granules, have about 2 000."""
MAX_BYTES = 64 * 2**30
"""Bytes that an archive may unpack to; the largest products have about 8 GiB."""
MAX_RATIO = 100
"""How many times its packed size an entry of more than `SMALL` bytes may unpack to; metadata of real products: 15."""
SMALL = 16 * 2**20


def archive_of(path: str) -> tuple[str, str] | None:
    """The local zip file and the path inside it that a ``/vsizip/`` path means; None for any other path."""
    match = re.match(r"/vsizip/(.+?\.zip)(?:/(.*))?$", path, re.IGNORECASE)
    return (match[1], (match[2] or "").strip("/")) if match and os.path.isfile(match[1]) else None


def names_in(archive: str) -> tuple[str, ...]:
    """The names of the files in a zip file, sorted.

    Raises:
        InputError: It is no zip file, or one that is not to be trusted: see `_check`.
    """
    with _open(archive) as file:
        return tuple(sorted(info.filename for info in file.infolist() if not info.is_dir()))


def read_from(archive: str, name: str, *, limit: int) -> bytes | None:
    """The content of a file in a zip file; None where there is no such file.

    Raises:
        InputError: The archive is not to be trusted, is damaged, or the file has more than ``limit`` bytes.
    """
    with _open(archive) as file:
        if name not in file.NameToInfo:
            return None
        if file.getinfo(name).file_size > limit:
            raise InputError(f"{archive}: {name} has more than {limit >> 20} MiB; it is not read")
        try:
            with file.open(name) as stream:
                return stream.read(limit)  # whatever the directory says of its size
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise InputError(f"{archive}: {name} cannot be read ({error}); download the archive again") from error


def _open(archive: str) -> zipfile.ZipFile:
    try:
        file = zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive} is no zip file that can be read ({error}); download it again") from error
    try:
        _check(file, archive)
    except InputError:
        file.close()
        raise
    return file


def _check(file: zipfile.ZipFile, archive: str) -> None:
    """Refuse what no product needs: names that leave the archive, links, entries that grow without measure."""
    infos = file.infolist()

    def refuse(why: str) -> None:
        raise InputError(f"{archive} is not read: {why}")

    if len(infos) > MAX_ENTRIES:
        refuse(f"it has {len(infos)} entries (at most {MAX_ENTRIES} are allowed)")
    for info in infos:
        parts = re.split(r"[/\\]", info.filename)
        if ".." in parts or not parts[0] or re.match(r"[A-Za-z]:", info.filename):
            refuse(f"entry {info.filename!r} would lie outside the archive")
        if stat.S_ISLNK(info.external_attr >> 16):
            refuse(f"entry {info.filename!r} is a symbolic link")
        if info.flag_bits & 1:
            refuse(f"entry {info.filename!r} is encrypted; unpack it first")
        if info.file_size > SMALL and info.file_size > MAX_RATIO * info.compress_size:
            refuse(
                f"entry {info.filename!r} unpacks {info.compress_size} bytes to {info.file_size} "
                f"(at most {MAX_RATIO} times as many are allowed)"
            )
    if (total := sum(info.file_size for info in infos)) > MAX_BYTES:
        refuse(f"it unpacks to {total >> 30} GiB (at most {MAX_BYTES >> 30} GiB are allowed)")
    if sum(info.compress_size for info in infos) > os.path.getsize(archive):
        refuse("its entries overlap")
    twice = [name for name, count in Counter(info.filename for info in infos).items() if count > 1]
    if twice:
        refuse(f"entry {twice[0]!r} occurs twice")
