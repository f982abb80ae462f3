"""Worked examples through the live engine: many at once on one bus, with the clock moved by what is published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from tests.support.rig import Rig
from tests.support.worked_examples import Timeline

from penstock.events import bus
from penstock.events.bus import Outgoing
from penstock.events.instants import Instant, format_instant
from penstock.services.database import tables
from penstock.triggers.simulation import instant_of

MS = 1_000
AFTER = 3_600_000_000  # microseconds that the clock runs on after the last instant that matters


@dataclass(frozen=True)
class Staged:
    """One timeline with names of its own, so that others on the same bus do not see it.

    arrivals: when each of its events arrives.  until: the last instant at which its decisions are compared.
    """

    timeline: Timeline
    rules: dict[str, Any]
    events: list[dict[str, Any]]
    arrivals: list[Instant]
    until: Instant

    @property
    def automations(self) -> set[str]:
        """Their names on the bus."""
        return {each["name"] for each in self.rules["automations"]}


def staged(timeline: Timeline) -> Staged:
    """The timeline under its own names: of automations, types and sources."""
    own = f"{timeline.name}."
    types = {each["type"] for each in timeline.events} | _types(json.loads(timeline.rules))
    renamed = {old: own + old for old in types}
    rules = _renamed(json.loads(timeline.rules), renamed)
    for each in rules["automations"]:
        each["name"] = f"{timeline.name}-{each['name']}"
        each.pop("tests", None)
        each["shadow"] = True  # what it would emit would be stamped now, and move the clock
    events, arrivals, clock = [], [], 0
    for each in timeline.events:
        said = each.get("recordedtime") or each.get("time")
        clock = clock if said is None else max(clock, instant_of(said))
        events.append({**each, "specversion": "1.0", "type": own + each["type"], "source": each["source"] + "/" + own})
        arrivals.append(clock)
    until = instant_of(timeline.until) if timeline.until else arrivals[-1]
    return Staged(timeline, rules, events, arrivals, until)


async def play(rig: Rig, timelines: Sequence[Staged], *, applied: Instant, partitions: int = 1) -> None:
    """Publish all events in order of arrival, with an engine running, until its clock has passed every `until`."""
    await rig.context.bus.ensure_topic(bus.EVENTS, partitions, stamped_by_producer=True)
    await rig.apply_files({f"{each.timeline.name}.yaml": json.dumps(each.rules) for each in timelines})
    await was_applied(rig, applied)
    moments = [pair for each in timelines for pair in zip(each.arrivals, each.events, strict=True)]
    end = max(each.until for each in timelines) + AFTER
    publisher = await rig.context.bus.publisher()
    await publisher.publish([arriving(at, event) for at, event in sorted(moments, key=lambda each: each[0])])
    await publisher.publish(ticks(end, partitions))
    await publisher.close()
    await rig.start_engine()
    await rig.until(lambda: reached(rig, end), what="the clock of every match partition to pass the end")


async def told(rig: Rig, of: Staged) -> tuple[list[dict[str, Any]], dict[tuple[str, str], int]]:
    """What was decided up to `until`, under the timeline's own names; and how many were suppressed, by rule and key."""
    prefix = f"{of.timeline.name}-"
    rows = await rig.rows(tables.decision, tables.decision.c.automation.in_(of.automations))
    decisions = [
        {
            "at": format_instant(row.at),
            "automation": row.automation.removeprefix(prefix),
            "kind": row.kind,
            "key": json.loads(row.key),
            "events": json.loads(row.events),
        }
        for row in rows
        if of.timeline.until is None or row.at <= of.until  # None: what `order` holds back is released in the end
    ]
    held = await rig.rows(tables.suppression, tables.suppression.c.automation.in_(of.automations))
    suppressed: dict[tuple[str, str], int] = {}
    for row in held:
        place = (row.automation.removeprefix(prefix), row.key)
        suppressed[place] = suppressed.get(place, 0) + row.count
    return decisions, suppressed


def ticks(at: Instant, partitions: int) -> list[Outgoing]:
    """One event for each partition that moves its clock to `at`."""
    events = [{"specversion": "1.0", "id": f"{at}-{n}", "source": "/clock", "type": "clock"} for n in range(partitions)]
    return [
        Outgoing(topic=bus.EVENTS, partition=n, value=json.dumps(each).encode(), timestamp=at + MS)
        for n, each in enumerate(events)
    ]


def arriving(at: Instant, event: dict[str, Any]) -> Outgoing:
    """An event's record.  at: when it arrives."""
    key = str(event.get("partitionkey") or event.get("subject") or event["source"])
    return Outgoing(topic=bus.EVENTS, key=key.encode(), value=json.dumps(event).encode(), timestamp=at)


async def was_applied(rig: Rig, at: Instant) -> None:
    """The revision in force counts as applied then: schedules and watches begin with the first event."""
    async with rig.context.database.begin() as connection:
        await connection.execute(sa.update(tables.revision).values(created=at))
    rulebook = rig.context.rulebook
    rulebook.current = replace(rulebook.current, applied=at)
    rulebook._known[rulebook.current.id] = rulebook.current


async def reached(rig: Rig, end: Instant) -> bool:
    """Whether every match partition's clock, as stored, has passed `end`, and nothing is due before it."""
    rows = await rig.rows(tables.progress, tables.progress.c.origin_topic == bus.EVENTS)
    due = await rig.rows(tables.state, tables.state.c.expires_at <= end)
    return len({row.partition for row in rows if row.at > end}) == bus.MATCH_PARTITIONS and not due


def _types(value: Any) -> set[str]:
    """Every type that a rule's triggers name, without wildcards."""
    found: set[str] = set()
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "event":
                found |= {each for each in _listed(inner) if isinstance(each, str)}
            elif name not in ("then", "where", "tests"):
                found |= _types(inner)
    elif isinstance(value, list):
        for each in value:
            found |= _types(each)
    return found


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            name: (
                [names[each] for each in _listed(inner)]
                if name == "event" and not isinstance(inner, dict)
                else inner
                if name in ("then", "where", "tests")
                else _renamed(inner, names)
            )
            for name, inner in value.items()
        }
    return [_renamed(each, names) for each in value] if isinstance(value, list) else value


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value]
