"""An API for commands to speak to, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from tests.support.fake_bus import FakeBus
from tests.support.served import Served, served


class Running:
    """An API in a thread of its own, since commands block."""

    def __init__(self, database_url: str) -> None:
        self._url, self.bus = database_url, FakeBus()
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def do(self, work: Any) -> Any:
        """Run a coroutine where the API runs."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with served(self._url, self.bus) as self.api:
            self._ready.set()
            await self._stop.wait()

    api: Served
