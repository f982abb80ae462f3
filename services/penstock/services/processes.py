"""How a Penstock process runs: an event loop that ends cleanly on SIGTERM and SIGINT, and structured logs."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import structlog
import uvloop

from penstock.automations.pools import STOPPING


def run_until_signalled(
    work: Coroutine[Any, Any, None], *, hurry: asyncio.Event | None = None, grace: float = STOPPING
) -> None:
    """Run `work`; SIGTERM or SIGINT cancels it once, and it has `grace` seconds to end.

    A second signal sets `hurry`, and the next one ends the process at once; without `hurry` the second one does.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(work, hurry, grace))


async def _until_signalled(work: Coroutine[Any, Any, None], hurry: asyncio.Event | None, grace: float) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            if hurry is None or hurry.is_set():
                sys.exit(1)
            hurry.set()
            return
        stopping.set()
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    done, _ = await asyncio.wait([task, asyncio.ensure_future(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
    if task not in done:
        await asyncio.wait([task], timeout=grace)
    if task.done() and not task.cancelled():
        task.result()


def configure_logging(level: str, *, json: bool) -> None:
    """One line a record on standard error: for people on a terminal, JSON for machines."""
    renderer: Any = (  # tracebacks without local variables: settings and secrets are among them
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if json else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for noisy in ("apscheduler", "faststream", "httpx", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # an outage is told by us, once, not by each connection
