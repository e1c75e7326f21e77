import os
import socket
import threading
import time

import pytest

from geosr.io import documents
from geosr.io.documents import read_json, within


@pytest.fixture
def serve():
    """A server on this machine that sends some bytes at once and then one now and then; its address."""
    stop, listening = threading.Event(), []

    def start(beginning):
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def drip():
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(beginning)
                    while not stop.wait(0.05):
                        connection.sendall(b" ")
            except OSError:
                pass  # nobody waits any more

        threading.Thread(target=drip, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/item.json"

    yield start
    stop.set()
    for listener in listening:
        listener.close()


@pytest.mark.parametrize(
    "beginning", [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"]
)
def test_a_server_that_drips_is_given_up(serve, monkeypatch, beginning):
    monkeypatch.setattr(documents, "SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"the server takes longer than 0\.3 s"):
        read_json(serve(beginning))
    assert time.monotonic() - start < 2


def test_a_server_may_send_on_to_the_web_alone(serve, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    for target in (f"file://{tmp_path}/secret.json", "ftp://127.0.0.1/x"):
        answer = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
        with pytest.raises(OSError, match=r"not allowed|unknown url type"):
            read_json(serve(answer.encode()))


def test_errors_of_a_call_are_its_own():
    with pytest.raises(TimeoutError, match="mine"):
        within(5, lambda: (_ for _ in ()).throw(TimeoutError("mine")))
    assert within(5, lambda: 3) == 3


@pytest.mark.parametrize("href", ["http://[::1", "http://a b/", "http://x.invalid:port/", "a\0b", "\ud800", "x" * 300])
def test_what_is_no_path_and_no_address_cannot_be_read(href):
    with pytest.raises(OSError):  # noqa: PT011  (each has its own words)
        read_json(href)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", "/dev/zero"):
        with pytest.raises(OSError, match="it is a pipe, a socket or a device, not a file"):
            read_json(path)
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)


def test_a_document_has_a_size_and_a_depth(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[" * 64 + "]" * 64)
    depth, node = 0, read_json(path)
    while isinstance(node, list):
        depth, node = depth + 1, next(iter(node), None)
    assert depth == 64
    for content in ("[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65, "[" * 200_000):
        path.write_text(content)
        with pytest.raises(ValueError, match="nested more than 64 levels deep"):
            read_json(path)
    with pytest.raises(ValueError, match=r"more than 0\.0\d+ MiB"):
        read_json(path, limit=100_000)


@pytest.mark.parametrize(("content", "value"), [(b'\xef\xbb\xbf{"a": 1}', {"a": 1}), (b"3", 3), (b"null", None)])
def test_json_of_any_kind_is_read(tmp_path, content, value):
    (tmp_path / "x.json").write_bytes(content)
    assert read_json(tmp_path / "x.json") == value
