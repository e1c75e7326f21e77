"""Documents: JSON that a user names by a path or a web address, read within limits of size, depth and time."""

import errno
import json
import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import Future
from http.client import HTTPException
from threading import Thread
from time import monotonic
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

SECONDS = 60.0
"""How long a request may take altogether: a server that sends a byte now and then never times out otherwise."""

LIMIT = 16 * 2**20
"""Bytes of a document; STAC items have some 100 kB."""

DEPTH = 64
"""Levels that lists and objects may be nested in each other; a STAC item has about ten."""

SILENCE = 30.0
"""Seconds until a server that sends nothing is given up."""
Result = TypeVar("Result")


def read_json(href: str | os.PathLike[str], *, limit: int | None = None) -> Any:
    """The JSON document in a file or at a web address (``http``, ``https``); a byte order mark is allowed.

    Args:
        href: Path or address.
        limit: Bytes that it may have; None: `LIMIT`.

    Raises:
        OSError: It cannot be read, is no regular file, or the server takes too long.
        ValueError: It is no JSON, too large, or nested too deeply.
    """
    href, limit = os.fspath(href), LIMIT if limit is None else limit
    content = within(SECONDS, lambda: _fetched(href, limit)) if is_web_address(href) else _stored(href, limit)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit / 2**20:g} MiB")
    too_deep = f"its lists and objects are nested more than {DEPTH} levels deep"
    try:
        document = json.loads(content)
    except RecursionError:
        raise ValueError(too_deep) from None
    level = [document]
    for _ in range(DEPTH):
        inside = [list(node.values()) if isinstance(node, dict) else node for node in level if _holds(node)]
        level = [node for children in inside for node in children if _holds(node)]
    if level:
        raise ValueError(too_deep)
    return document


def _holds(node: object) -> bool:
    return isinstance(node, dict | list)


def is_web_address(href: str) -> bool:
    """Whether a text is an ``http`` or ``https`` address."""
    return bool(re.match(r"https?://", href, re.IGNORECASE))


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """The result of a call that waits for a network, given up after a time.

    Raises:
        TimeoutError: It takes longer. The call is left to end by itself, and its result is dropped.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, name="request", daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError:
        if future.done():
            raise
        raise TimeoutError(f"the server takes longer than {seconds:g} s") from None


def _stored(path: str, limit: int) -> bytes:
    """The first bytes of a regular file; opening a pipe would wait for whoever writes into it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, str(error)) from error
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file")
        with open(handle, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(handle)


def _fetched(address: str, limit: int) -> bytes:
    """The first bytes of what a server answers; it may send geosr on to another web address, and nowhere else."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler, UnknownHandler, HTTPHandler, HTTPSHandler,
        HTTPDefaultErrorHandler, HTTPRedirectHandler, HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    end, parts = monotonic() + SECONDS, bytearray()
    try:
        request = Request(address, headers={"Accept": "application/geo+json, application/json", "User-Agent": "geosr"})
        with opener.open(request, timeout=min(SILENCE, SECONDS)) as answer:
            while len(parts) <= limit and monotonic() < end and (part := answer.read1(1 << 16)):
                parts += part
            if len(parts) <= limit and monotonic() >= end:
                raise TimeoutError(f"the server takes longer than {SECONDS:g} s")
            return bytes(parts[: limit + 1])
    except HTTPError as error:
        error.close()  # it is an open answer, too
        raise
    except (HTTPException, ValueError) as error:  # no address, or no answer of a web server
        raise OSError(errno.EINVAL, f"{type(error).__name__}: {error}") from error
