"""The api service: HTTP for programs and people, and the watcher of the rule files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence

import structlog
import uvicorn

from penstock.services.api.app import make_app
from penstock.services.api.publishing import GroupPublisher
from penstock.services.context import Context, UnmendableError
from penstock.services.rule_files import RulesWatcher
from penstock.services.settings import Settings

_GRACE = 5  # seconds for requests under way when the service is told to end
_log = structlog.get_logger()


class AddressError(UnmendableError):
    """HTTP cannot listen where the settings say."""


class ApiService:
    """Serves HTTP on settings.host and settings.port; `address` says where, once started."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.address = ""  # "http://127.0.0.1:4180"
        self.watcher = RulesWatcher(context)

    async def run(self, started: Callable[[], None]) -> None:
        """See `context.Service`.  Raises AddressError where the port is taken."""
        publisher = GroupPublisher(self._context.bus)
        listener = listen(self._context.settings)
        self.address = _address(listener)
        proxies = self._context.settings.trusted_proxies
        server = _Server(make_app(self._context, publisher, self.watcher), proxies, started)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        watching = asyncio.create_task(self.watcher.run())
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True
            await serving
            raise
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            listener.close()
            await publisher.close()


class _Server(uvicorn.Server):
    """uvicorn without its own hands on signals: whoever runs the services handles those."""

    def __init__(self, app: object, proxies: Sequence[str], started: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]  # any ASGI application
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),  # else everybody on this machine could say that it came by https
            forwarded_allow_ips=list(proxies),
            timeout_graceful_shutdown=_GRACE,
        )
        super().__init__(config)
        self._on_started = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()


def listen(settings: Settings) -> socket.socket:
    """A listening socket, bound already, so that port 0 has become a real one.  Raises AddressError."""
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise AddressError(
            f"{settings.host} is no address of this machine ({error.strerror}); see PENSTOCK_HOST"
        ) from None
    listener = socket.socket(found[0], socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(found[4])
    except OSError as error:
        listener.close()
        other = "choose another port with --port or PENSTOCK_PORT"
        if error.errno == errno.EADDRINUSE:
            raise AddressError(f"{where} is in use; stop what listens there, or {other}") from None
        raise AddressError(f"cannot listen at {where}: {error.strerror}; {other}, or another PENSTOCK_HOST") from None
    listener.setblocking(False)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- read, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
