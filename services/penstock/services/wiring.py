"""The one room that knows all services: opens what they share, and starts them."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from redis.asyncio import BlockingConnectionPool, Redis

from penstock.events.errors import PenstockError
from penstock.services.bus import connect as connect_bus
from penstock.services.cancellation import CancellableRedis
from penstock.services.context import Context, Service, UnmendableError
from penstock.services.database import connect as connect_database
from penstock.services.hints import Hints
from penstock.services.rulebook import RuleBook
from penstock.services.settings import Settings

_log = structlog.get_logger()


class NotConfiguredError(PenstockError):
    """A URL that this process needs is not set."""


class UnknownServiceError(PenstockError):
    """There is no service of that name."""


def _api(context: Context) -> Service:
    from penstock.services.api.service import ApiService

    return ApiService(context)


def _engine(context: Context) -> Service:
    from penstock.services.engine import EngineService

    return EngineService(context)


def _scheduler(context: Context) -> Service:
    from penstock.services.scheduler import SchedulerService

    return SchedulerService(context)


def _sensors(context: Context) -> Service:
    from penstock.services.sensors import SensorsService

    return SensorsService(context)


def _notifier(context: Context) -> Service:
    from penstock.services.notifier import NotifierService

    return NotifierService(context)


def _worker(context: Context) -> Service:
    from penstock.services.worker import WorkerService

    return WorkerService(context)


# Imported only when asked for: a process loads what it runs.
SERVICES: dict[str, Callable[[Context], Service]] = {
    "api": _api,
    "engine": _engine,
    "scheduler": _scheduler,
    "sensors": _sensors,
    "notifier": _notifier,
    "worker": _worker,
}


def instance_name(name: str = "") -> str:
    """Names this process among all that share a database.  name: instead of host and process id."""
    return f"{name or f'{socket.gethostname()}-{os.getpid()}'}-{secrets.token_hex(3)}"


@asynccontextmanager
async def open_context(settings: Settings, hurry: asyncio.Event | None = None) -> AsyncIterator[Context]:
    """Open everything that services share; closed at the end.  Raises NotConfiguredError.

    hurry: as in Context; it is set when the process is told to stop a second time.
    """
    for name in ("bus_url", "database_url", "redis_url"):
        if not getattr(settings, name):
            raise NotConfiguredError(
                f"PENSTOCK_{name.upper()} is not set; a service of its own process needs all three URLs"
                " (`penstock up` needs none)"
            )
    async with AsyncExitStack() as stack:
        database = connect_database(settings.database_url)
        stack.push_async_callback(database.close)
        redis = open_redis(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        bus = await connect_bus(settings.bus_url)
        stack.push_async_callback(bus.close)
        hints = Hints(redis)
        rulebook = RuleBook(database, hints, settings.namespace)
        instance = instance_name(settings.worker_name)
        yield Context(settings, database, bus, redis, hints, rulebook, instance, hurry or asyncio.Event())


def open_redis(url: str) -> Redis:
    """A client whose pool waits for a free connection instead of failing (redis-py's default fails at 100)."""
    return CancellableRedis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=50, timeout=20))


async def run_services(
    context: Context,
    names: Sequence[str],
    *,
    started: Callable[[Context, dict[str, Service]], None],
    restart: bool,
) -> None:
    """Run services until cancelled; `started` is called once, when every one of them does its job.

    restart: one that fails is started again, after a pause that grows; else its exception ends the call.
    """
    services = {name: _make(name, context) for name in names}
    waiting = set(names)

    def one_started(name: str) -> None:
        _log.info("service.started", service=name)
        first = bool(waiting)
        waiting.discard(name)
        if first and not waiting:
            started(context, services)

    async with asyncio.TaskGroup() as group:
        group.create_task(context.hints.run())
        group.create_task(context.rulebook.run())
        for name, service in services.items():
            group.create_task(_supervise(name, service, one_started, restart=restart))


def _make(name: str, context: Context) -> Service:
    if name not in SERVICES:
        raise UnknownServiceError(f"there is no service {name!r}; there are {', '.join(SERVICES)}")
    return SERVICES[name](context)


async def _supervise(name: str, service: Service, started: Callable[[str], None], *, restart: bool) -> None:
    pause = 0.5
    while True:
        try:
            await service.run(lambda: started(name))
            return
        except UnmendableError:
            raise
        except Exception:
            if not restart:
                raise
            _log.exception("service.failed", service=name, restarting_in_seconds=pause)
        await asyncio.sleep(pause)
        pause = min(30.0, pause * 2)
