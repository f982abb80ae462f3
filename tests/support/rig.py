"""A rig around the engine: open connections, rules in the database, events on the bus, and what came of them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from penstock.events import Event, bus
from penstock.events.bus import Outgoing, Record, TopicPartition
from penstock.services.context import Context
from penstock.services.database import clock, migrate, tables
from penstock.services.engine import EngineService
from penstock.services.settings import Settings
from penstock.services.wiring import open_context

PATIENCE = 60.0  # seconds until a wait is given up


async def until(condition: Callable[[], Awaitable[Any]], *, within: float = PATIENCE, what: str = "") -> Any:
    """Wait for a true value of `condition`, asking again and again; fails with its last value."""
    found = None
    deadline = asyncio.get_running_loop().time() + within
    while asyncio.get_running_loop().time() < deadline:
        if found := await condition():
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited {within:g} s in vain for {what or condition}; last: {found!r}")


def standing() -> str:
    """Where every task of this loop waits."""
    text = io.StringIO()
    for task in asyncio.all_tasks():
        text.write(f"{task.get_name()} {task.get_coro()}\n")
        task.print_stack(file=text)
    return text.getvalue()


class Rig:
    """One process's connections, and what tests ask of them."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.engines: list[asyncio.Task[None]] = []

    async def until(self, condition: Callable[[], Awaitable[Any]], *, within: float = PATIENCE, what: str = "") -> Any:
        """As `until`; an engine that has failed ends the wait with its error."""

        async def checked() -> Any:
            for engine in self.engines:
                if engine.done() and not engine.cancelled():
                    engine.result()
            return await condition()

        return await until(checked, within=within, what=what)

    async def apply(self, text: str, flows: Sequence[str] = ()) -> int:
        """Make these rules the ones in force, and register flows by name.  Returns the revision."""
        return await self.apply_files({"rules.yaml": text}, flows)

    async def apply_files(self, files: Mapping[str, str], flows: Sequence[str] = ()) -> int:
        """As `apply`, for several files."""
        ns = self.context.settings.namespace
        values = {
            "namespace": ns,
            "digest": str(hash(frozenset(files.items()))),
            "files": json.dumps(dict(files)),
            "actor": "test",
        }
        async with self.context.database.begin() as connection:
            insert = sa.insert(tables.revision).values(created=clock.now(), **values).returning(tables.revision.c.id)
            number = (await connection.execute(insert)).scalar_one()
            for name in flows:
                row = {"namespace": ns, "name": name, "pool": "default", "module": "m", "parameters": "{}"}
                adding = self.context.database.insert(tables.flow).values(updated=clock.now(), **row)
                await connection.execute(adding.on_conflict_do_nothing())
        revision = await self.context.rulebook.refresh()
        assert revision.rules.errors == (), revision.rules.errors
        return int(number)

    async def publish(self, events: Iterable[Event]) -> None:
        """Put events onto penstock.events, acknowledged."""
        await self.context.bus.ensure_topic(bus.EVENTS, self.context.settings.event_partitions)
        publisher = await self.context.bus.publisher()
        await publisher.publish(
            [Outgoing(topic=bus.EVENTS, key=each.ordering_key.encode(), value=each.to_json()) for each in events]
        )
        await publisher.close()

    async def start_engine(self) -> asyncio.Task[None]:
        """An engine that has begun; it runs until the rig is closed, or `stop` ends it."""
        begun = asyncio.Event()
        task = asyncio.create_task(EngineService(self.context).run(begun.set))
        self.engines.append(task)
        waiting = asyncio.create_task(begun.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            task.result()
        return task

    async def stop(self, engine: asyncio.Task[None]) -> None:
        """End it the way SIGTERM does; one that does not end fails, with the place where it stands."""
        engine.cancel()
        await asyncio.wait([engine], timeout=PATIENCE)
        if not engine.done():
            raise AssertionError(f"the engine did not end within {PATIENCE:g} s of its cancellation:\n{standing()}")
        with suppress(asyncio.CancelledError):
            engine.result()

    async def rows(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> list[Any]:
        """The rows of a table."""
        async with self.context.database.read() as connection:
            return list((await connection.execute(sa.select(table).where(*where))).all())

    async def decisions(self) -> list[tuple[str, Any, tuple[str, ...]]]:
        """(automation, key, event ids) of every decision, sorted."""
        rows = await self.rows(tables.decision)
        return sorted((row.automation, json.loads(row.key), tuple(json.loads(row.events))) for row in rows)

    async def wait_for_decisions(self, count: int) -> list[tuple[str, Any, tuple[str, ...]]]:
        """Until there are that many."""

        async def enough() -> list[tuple[str, Any, tuple[str, ...]]] | None:
            found = await self.decisions()
            return found if len(found) >= count else None

        found: list[tuple[str, Any, tuple[str, ...]]] = await self.until(enough, what=f"{count} decisions")
        return found

    async def all_read(self) -> None:
        """Until every stage has committed up to the end of its topics, and nothing is left in the outbox."""
        await self.until(self._all_read, what="the engine to read to the end")

    async def _all_read(self) -> bool:
        for row in await self.rows(tables.position, tables.position.c.topic == bus.EVENTS):
            end = await self.context.bus.end(TopicPartition(row.topic, row.partition))
            if max(row.position, 0) < end.position and end.position != await self._beginning(row):
                return False
        return not await self.rows(tables.outbox)

    async def _beginning(self, row: Any) -> int:
        return await self.context.bus.beginning(TopicPartition(row.topic, row.partition))

    async def records(self, topic: str) -> list[Record]:
        """Everything on a topic now."""
        found = await self.context.bus.topic(topic)
        assert found is not None, topic
        reader = self.context.bus.reader()
        ends = {}
        for number in range(found.partitions):
            key = TopicPartition(topic, number)
            ends[key] = (await self.context.bus.end(key)).position
            await reader.take(key, await self.context.bus.beginning(key))
        records: list[Record] = []
        reached = {key: await self.context.bus.beginning(key) for key in ends}
        while any(reached[key] < end for key, end in ends.items()):
            for key, batch in (await reader.poll(max_records=5_000, timeout=1.0)).items():
                records += batch
                reached[key] = batch[-1].offset + 1
        await reader.close()
        return records

    async def close(self) -> None:
        """Stop every engine."""
        for engine in self.engines:
            if not engine.done():
                await self.stop(engine)


@asynccontextmanager
async def open_rig(*, database_url: str, bus_url: str, redis_url: str, folder: Path, **more: Any) -> AsyncIterator[Rig]:
    """A rig with an upgraded database."""
    settings = Settings(database_url=database_url, bus_url=bus_url, redis_url=redis_url, data_dir=folder, **more)
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings))
        await migrate.upgrade(context.database)
        rig = Rig(context)
        listening = [asyncio.create_task(context.hints.run()), asyncio.create_task(context.rulebook.run())]
        try:
            yield rig
        finally:
            await rig.close()
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)
