"""Weights on the Hugging Face hub, of which every bit is pinned: ``hf://owner/repo/file@revision#sha256=...``."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from geosr.errors import ModelError, extra
from geosr.files import sha256_of

PREFIX = "hf://"
"""What the address of a file on the hub starts with."""

_ADDRESS = re.compile(
    r"hf://(?P<repository>[^/@#]+/[^/@#]+)/(?P<path>[^@#]+)(@(?P<revision>[^@#]+))?(#sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)


@dataclass(frozen=True)
class HubFile:
    """A file on the hub."""

    repository: str
    """Owner and name."""
    path: str
    """The file in the repository."""
    revision: str | None
    """Commit or tag."""
    sha256: str | None
    """Hash of the file's bytes, in hexadecimal."""

    @classmethod
    def parse(cls, address: str) -> "HubFile":
        """The file that an address names, with or without its revision and hash.

        >>> HubFile.parse("hf://owner/repo/x4/model.safetensors@v1")
        HubFile(repository='owner/repo', path='x4/model.safetensors', revision='v1', sha256=None)

        Raises:
            ModelError: It is no such address.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise ModelError(
                f"{address!r} is no file on the hub; write hf://owner/repo/file.safetensors@revision#sha256=..., "
                "the hash in 64 hexadecimal digits"
            )
        return cls(match["repository"], match["path"], match["revision"], match["sha256"] and match["sha256"].lower())

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}/{self.path}@{self.revision or 'REVISION'}#sha256={self.sha256 or 'HASH'}"


def download(address: str) -> Path:
    """Path of the file that an address on the hub names, from the hub's cache if it is there.

    Raises:
        ModelError: The address pins no revision or no hash, the file cannot be had, or has another hash.
        GeosrError: The hub's client is not installed.
    """
    wanted = HubFile.parse(address)
    with extra("hub", address):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    if wanted.revision is None or wanted.sha256 is None:
        raise ModelError(f"{address} may change any day, since it names no {_missing(wanted)}; {_pinned(wanted)}")
    try:
        path = Path(hf_hub_download(wanted.repository, wanted.path, revision=wanted.revision))
    except HfHubHTTPError as error:
        raise ModelError(f"the hub does not give {address}: {_first_line(error)}") from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{address} is not in the hub's cache and cannot be fetched ({_first_line(error)}); repeat the command "
            "with a connection, or copy the file here and name its path"
        ) from error
    found = sha256_of(path)
    if found != wanted.sha256:
        raise ModelError(
            f"{address} is another file: its SHA-256 is {found}. It is not opened; ask its author which one is meant"
        )
    return path


def _missing(wanted: HubFile) -> str:
    return " and no ".join(name for name in ("revision", "sha256") if getattr(wanted, name) is None)


def _pinned(wanted: HubFile) -> str:
    """The address to write instead, as far as the hub can be asked."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        today = get_hf_file_metadata(hf_hub_url(wanted.repository, wanted.path, revision=wanted.revision))
    except (OSError, ValueError):
        return f"write {wanted}, with the hash that its author or the file's page on the hub tells"
    large = today.etag is not None and len(today.etag) == 64  # only of small files is it not the SHA-256
    return f"as it is today: {replace(wanted, revision=today.commit_hash, sha256=today.etag if large else None)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
