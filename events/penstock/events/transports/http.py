"""Through the API, with the standard library alone: `POST /events`, which answers once the bus has acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from penstock.events.bus import Outgoing
from penstock.events.codec import BATCH, STRUCTURED
from penstock.events.errors import BufferFullError, BusError, BusUnavailableError, InvalidEventError
from penstock.events.event import MAX_BODY
from penstock.events.targets import Target

_THREADS = 8


class AccessRefusedError(BusError):
    """The API does not know the key, or the key may not emit."""


class HttpTransport:
    """Keeps connections open between calls; each call takes one."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._idle: list[http.client.HTTPConnection] = []
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="penstock-emit-http")

    async def send(self, records: Sequence[Outgoing], timeout: float) -> None:
        """See Transport. More than 1 MiB goes in several requests, one after the other."""
        deadline = time.monotonic() + timeout
        loop = asyncio.get_running_loop()
        for media, body in _requests(records):
            await loop.run_in_executor(self._threads, self._post, media, body, deadline)

    async def close(self) -> None:
        """See Transport."""
        self._threads.shutdown(wait=False)
        while self._idle:
            self._idle.pop().close()

    def _post(self, media: str, body: bytes, deadline: float) -> None:
        url = self._target.server
        try:
            status, answer = self._exchange(media, body, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise BusUnavailableError(
                f"no acknowledgement from {url} ({error!r}); is Penstock running there? To emit the same events again"
                " is safe"
            ) from error
        if status not in (200, 202, 204):
            raise _refusal(status, answer, url)

    def _exchange(self, media: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        """One request; a connection that the server closed while it was idle is replaced once."""
        while True:
            reused = bool(self._idle)
            connection = self._connection(max(0.05, deadline - time.monotonic()))
            try:
                connection.request("POST", self._path(), body, self._headers(media))
                response = connection.getresponse()
                answer = response.read()
            except BaseException as error:
                connection.close()
                if reused and isinstance(
                    error, http.client.RemoteDisconnected | BrokenPipeError | ConnectionResetError
                ):
                    continue  # events sent twice are one event
                raise
            if response.will_close:
                connection.close()
            else:
                self._idle.append(connection)
            return response.status, answer

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        with contextlib.suppress(IndexError):
            connection = self._idle.pop()
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.timeout = timeout
            return connection
        parts = urlsplit(self._target.server)
        host = parts.hostname or ""
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
        return http.client.HTTPConnection(host, parts.port, timeout=timeout)

    def _path(self) -> str:
        return urlsplit(self._target.server).path.rstrip("/") + "/events"

    def _headers(self, media: str) -> dict[str, str]:
        headers = {"Content-Type": media}
        if self._target.key:
            headers["Authorization"] = f"Bearer {self._target.key}"
        return headers


def _requests(records: Sequence[Outgoing]) -> Iterator[tuple[str, bytes]]:
    """Bodies of at most 1 MiB, in order."""
    if len(records) == 1:
        yield STRUCTURED, records[0].value
        return
    gathered: list[bytes] = []
    size = 2
    for record in records:
        if gathered and size + len(record.value) + 1 > MAX_BODY:
            yield _batch(gathered)
            gathered, size = [], 2
        gathered.append(record.value)
        size += len(record.value) + 1
    if gathered:
        yield _batch(gathered)


def _batch(bodies: list[bytes]) -> tuple[str, bytes]:
    if len(bodies) == 1:
        return STRUCTURED, bodies[0]
    return BATCH, b"[" + b",".join(bodies) + b"]"


def _refusal(status: int, answer: bytes, url: str) -> BusError | InvalidEventError:
    detail, members = _problem(status, answer)
    if status in (400, 413, 422):
        error = InvalidEventError(detail)  # which says field and index already
        index = members.get("index")
        error.field, error.index = str(members.get("field", "")), index if isinstance(index, int) else None
        return error
    if status in (401, 403):
        return AccessRefusedError(f"{url} refused the key: {detail}. Set PENSTOCK_API_KEY to one that may emit")
    if status == 429:
        return BufferFullError(f"{url} takes no more for now: {detail}")
    if status >= 500:
        return BusUnavailableError(f"{url} answered {status}: {detail}")
    return BusError(f"{url} answered {status} to POST /events: {detail}; is it a Penstock?")


def _problem(status: int, answer: bytes) -> tuple[str, dict[str, object]]:
    with contextlib.suppress(ValueError):
        members = json.loads(answer)
        if isinstance(members, dict):
            return str(members.get("detail") or http.client.responses.get(status, status)), members
    return str(http.client.responses.get(status, status)), {}
