import hashlib
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

from geosr.errors import GeosrError, ModelError
from geosr.models.hub import HubFile, download

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ADDRESS = "hf://owner/repo/x4/model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of one file, which remembers what it was asked for; ``fails`` is what it raises instead."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(CONTENT)
    hub = SimpleNamespace(path=path, asked=[], fails=None, etag=SHA256)

    def ask(*what):
        hub.asked.append(what)
        if hub.fails is not None:
            raise hub.fails

    def fetch(repository, name, *, revision):
        ask(repository, name, revision)
        return str(path)

    def look(url):
        ask(url)
        return SimpleNamespace(commit_hash=COMMIT, etag=hub.etag)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", look)
    return hub


@pytest.mark.parametrize("digits", [SHA256, SHA256.upper()])
def test_a_pinned_file_is_fetched_and_its_hash_verified(hub, digits):
    assert download(f"{ADDRESS}@{COMMIT}#sha256={digits}") == hub.path
    assert hub.asked == [("owner/repo", "x4/model.safetensors", COMMIT)]


def test_another_file_than_the_one_that_was_pinned_is_refused(hub):
    hub.path.write_bytes(b"other weights")
    found = hashlib.sha256(b"other weights").hexdigest()
    with pytest.raises(ModelError, match=f"is another file: its SHA-256 is {found}. It is not opened"):
        download(f"{ADDRESS}@{COMMIT}#sha256={SHA256}")


@pytest.mark.parametrize(
    ("pins", "missing"),
    [("", "revision and no sha256"), ("@v1", "sha256"), (f"#sha256={SHA256}", "revision")],
)
def test_what_is_not_pinned_is_refused_with_the_line_to_write(hub, pins, missing):
    with pytest.raises(ModelError) as refused:
        download(ADDRESS + pins)
    line = f"{ADDRESS}@{COMMIT}#sha256={SHA256}"
    assert f"names no {missing}; as it is today: {line}" in str(refused.value)
    assert len(hub.asked) == 1, "the file itself is not fetched"
    assert str(HubFile.parse(line)) == line


def test_where_the_hub_tells_no_hash_or_is_out_of_reach_the_line_has_a_gap(hub):
    hub.etag = "0" * 40  # of a small file the hub knows git's hash only
    with pytest.raises(ModelError, match=rf"today: {ADDRESS}@{COMMIT}#sha256=HASH"):
        download(ADDRESS)
    hub.fails = OfflineModeIsEnabled("offline")
    with pytest.raises(ModelError, match=rf"write {ADDRESS}@v1#sha256=HASH, with the hash that its author"):
        download(f"{ADDRESS}@v1")


@pytest.mark.parametrize("error", [OfflineModeIsEnabled("offline"), LocalEntryNotFoundError("no connection")])
def test_offline_the_error_says_what_to_do(hub, error):
    hub.fails = error
    with pytest.raises(ModelError, match=rf"\({error}\); repeat the command with a connection, or copy the file here"):
        download(f"{ADDRESS}@{COMMIT}#sha256={SHA256}")


def test_what_the_hub_refuses_is_told(hub):
    response = SimpleNamespace(headers={}, request=None, status_code=404)
    hub.fails = RepositoryNotFoundError("404: no such repository\nmore", response=response)
    with pytest.raises(ModelError, match=r"the hub does not give hf://.*: 404: no such repository$"):
        download(f"{ADDRESS}@{COMMIT}#sha256={SHA256}")


@pytest.mark.parametrize(
    "address", ["hf://repo/file", "hf://owner/repo", f"{ADDRESS}@v1#sha256=12", f"{ADDRESS}#md5=1"]
)
def test_what_is_no_address_is_refused(hub, address):
    with pytest.raises(
        ModelError, match=r"is no file on the hub; write hf://owner/repo/file\.safetensors@revision#sha2"
    ):
        download(address)
    assert hub.asked == []


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(GeosrError, match=r"needs huggingface_hub: pip install 'geosr\[hub\]'"):
        download(f"{ADDRESS}@v1#sha256={SHA256}")
