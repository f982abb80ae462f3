"""A run's rows: made by the engine, moved from state to state by workers and operators.

Every change of state is one row of `run_event` and one event `penstock.run.<state>`, in the transaction of the change.
Every write of a worker carries the epoch of its claim and is refused with StaleEpochError once somebody else has
claimed the run, or an operator has moved it.

Events of a run carry `correlationid`, `causationid`, `traceparent` and `hops` of its row, as its maker set them: the
cause of all of them is what launched the run (for a firing: its decision), and they are one chain of causes however
often the run is taken over. Their ids are derived from run and number, so that none is counted twice.

Formats: `run.format` is the oldest format of worker that can run the row, and `journal.format` likewise. A release adds
nullable columns and optional fields, which workers of the format before do not look at, and goes on writing the format
before; only the release after raises what it writes. A worker therefore claims rows of format <= its own (FORMAT), and
ignores columns and fields that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations.facts import RunEnded
from penstock.events.bus import Outgoing, runs_topic
from penstock.events.errors import PenstockError
from penstock.events.ids import derived_id
from penstock.events.instants import Instant, microseconds
from penstock.flows.journal import TaskCall
from penstock.flows.sources import RecordedCall
from penstock.flows.states import State, can_become
from penstock.services.database import Database, StaleEpochError, clock
from penstock.services.database.late import Writes, at_the_end
from penstock.services.database.prepared import Prepared, Row, inserting, on_driver
from penstock.services.database.records import publish_each, service_lane, system_event, tell_firing
from penstock.services.database.tables import deployment, journal, run, run_event, run_log
from penstock.services.turns import fairness_key

FORMAT = 1
NEVER: Instant = 253_402_300_799_000_000  # the end of the year 9999
LINE_LIMIT = 16_384  # characters of one log line or error that are kept

_BEFORE: Mapping[State, tuple[str, ...]] = {
    new: tuple(old.value for old in State if can_become(old, new)) for new in State
}
# What an event of a run tells of it: never parameters, results or errors, which may hold secrets or megabytes.
_TOLD = (
    *("id", "namespace", "flow", "pool", "state", "attempt", "retries", "epoch", "seq", "worker", "due_at", "limits"),
    *("firing_id", "lane", "step", "report", "correlationid", "causationid", "traceparent", "hops", "deployment"),
    *("asked", "asked_by"),
)
# What becomes of a run whose code was asked to stop, when it has stopped for another reason: as it was asked.
_ASKED_FOR: Mapping[str, State] = {"cancel": State.CANCELLED, "suspend": State.PAUSED}
_ORIGIN = (("firing", "firing_id"), ("deployment", "deployment"))  # told where there is one


class RunNotFoundError(PenstockError, LookupError):
    """There is no run with this id."""


class TransitionError(PenstockError):
    """A run cannot go from the state it is in to the one asked for."""

    def __init__(self, run_id: str, old: str, new: str) -> None:
        self.run_id, self.old, self.new = run_id, old, new
        super().__init__(f"run {run_id} is {old}; a run that is {old} cannot become {new}")


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be made. id: derived from its cause, so that it is made once.

    parameters: JSON of an object; secrets stand in it as placeholders that carry `nonce`.  queue: of its pool.
    fairness_key: whose run it is; the keys of a flow take turns (turns.py).  limits: names, beside those of the flow.
    report: 1 if its end is a fact for (firing_id, lane, step).  actor: who launched it.
    deployment: whose run it is.  version: the git commit of the flow's folder.
    gate: 0 if it has to wait until its deployment has a place for it (places.py), else None.
    """

    id: str
    flow: str
    parameters: str = "{}"
    namespace: str = "default"
    pool: str = "default"
    nonce: str = ""
    priority: int = 0
    queue: str = "default"
    fairness_key: str = ""
    limits: tuple[str, ...] = ()
    firing_id: str | None = None
    lane: str | None = None
    step: str | None = None
    report: int = 0
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    hops: int = 0
    actor: str = "system"
    deployment: str | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    gate: int | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a run's log. at: when it was written, by the clock of the child's machine."""

    at: Instant
    level: str
    line: str


_KEPT_OF_NEW = (
    *("id", "flow", "parameters", "namespace", "pool", "nonce", "priority", "limits", "firing_id", "lane", "step"),
    *("queue", "fairness_key"),
    *("report", "correlationid", "causationid", "traceparent", "hops", "state", "seq", "format"),
    *("deployment", "version", "tags", "gate"),
)
_create = inserting(
    run, *_KEPT_OF_NEW, created=clock.now(), due_at=clock.now(), ignore=True, returning=("id", "created")
)
_create_new = inserting(run, *_KEPT_OF_NEW, created=clock.now(), due_at=clock.now())
_note = inserting(run_event, "run_id", "seq", "namespace", "state", "detail", "actor", "epoch", "at")


async def create_runs(connection: AsyncConnection, runs: Sequence[NewRun]) -> list[Outgoing]:
    """Make runs that are due at once; those that exist already are left as they are.

    Returns what the caller has to publish with it: the wake-up of each new one and its `penstock.run.pending`; of one
    with a gate its `penstock.run.scheduled` alone, and the caller gives the hint PLACES.
    """
    found = await _create.many(connection, [_new_row(each) for each in runs])
    created: dict[str, Instant] = {row["id"]: row["created"] for row in found}
    new = [each for each in {each.id: each for each in runs}.values() if each.id in created]
    at_the_end(connection, _note, [_first_event(each, created[each.id]) for each in new])
    return [record for each in new for record in _announced(each, created[each.id])]


def create_new(writes: Writes, runs: Sequence[NewRun], at: Instant) -> list[Outgoing]:
    """As `create_runs`, at once with everything else: it fails as a whole where one of these is there already."""
    at_the_end(writes, _create_new, [_new_row(each) for each in runs])
    at_the_end(writes, _note, [_first_event(each, at) for each in runs])
    return [record for each in runs for record in _announced(each, at)]


def _announced(new: NewRun, at: Instant) -> list[Outgoing]:
    told = _told(_new_row(new) | {"seq": 1, "attempt": 0, "retries": 0}, at)
    return [told] if new.gate == 0 else [wake_up(new.id, new.pool, new.namespace), told]


def wake_up(run_id: str, pool: str, namespace: str) -> Outgoing:
    """The record that wakes a worker of `pool`; it says no more than where to look."""
    value = json.dumps({"v": 1, "run": run_id, "namespace": namespace}).encode()
    return Outgoing(topic=runs_topic(pool), key=run_id.encode(), value=value)


async def change_state(
    connection: AsyncConnection,
    run_id: str,
    epoch: int | None,
    new: State,
    *,
    detail: str = "",
    actor: str = "system",
    goes_on: bool = False,
    due_in: timedelta | None = None,
    began: Instant | None = None,
    told_as: str = "",
    **columns: Any,
) -> Row:
    """Put a run into another state: its row, one `run_event`, one event.  Returns the run's row as events tell it.

    epoch: the claim's; None for an operator, whose change ends whatever claim there is (the epoch is raised).
    goes_on: this final state is not the end, the caller has it retried in the same transaction.
    due_in: from now on the database's clock.  began: when its code did, where that was before this is written.
    columns: written with it, e.g. `result`; a `source` that the row has stays.  told_as: the last word of the event's
    type, where it is not the state's.
    A run that is not running has no worker and no lease. An end is a fact for the firing that waits for it.
    What a person has asked of the running code holds, for whatever reason that stops: instead of going on later, the
    run becomes what was asked for, as a second change of state; the row that is returned tells of it.
    Raises StaleEpochError, TransitionError, RunNotFoundError.
    """
    statement = _changing(
        new,
        forced=epoch is None,
        due=due_in is not None,
        began=began is not None,
        over=new.is_final and not goes_on,
        columns=tuple(sorted(columns)),
    )
    given: dict[str, Any] = {f"new_{name}": value for name, value in columns.items()} | {"run_": run_id}
    given |= {} if epoch is None else {"mine": epoch}
    given |= {} if due_in is None else {"wait": microseconds(due_in)}
    given |= {} if began is None else {"began": began}
    rows = await statement.fetch(connection, **given)
    if not rows:
        raise await _refused(connection, run_id, epoch, new)
    rows = rows if began is None else [{**row, "now": began} for row in rows]
    tell_changes(connection, rows, [clean(detail)], actor, goes_on=goes_on, told_as=told_as)
    if new.is_final and not goes_on and rows[0]["report"]:
        await _tell_end(connection, rows[0], columns.get("result"))
    if rows[0]["asked"] is not None and new is not State.RUNNING and not goes_on:
        return await _obey(connection, rows[0])
    return rows[0]


async def _obey(connection: AsyncConnection, row: Row) -> Row:
    """Do what was asked of a run that has stopped running."""
    wanted = _ASKED_FOR[row["asked"]]
    if wanted == row["state"]:
        forgotten = {"asked": None, "asked_by": None, "waiting_for": None}  # no answer lets it go on
        await connection.execute(sa.update(run).where(run.c.id == row["id"]).values(**forgotten))
        return {**row, **forgotten}
    told = f"{row['asked']} was asked for while it ran"
    return await change_state(
        connection, row["id"], row["epoch"], wanted, detail=told, actor=row["asked_by"], asked=None, asked_by=None
    )


@cache
def _changing(new: State, *, forced: bool, due: bool, began: bool, over: bool, columns: tuple[str, ...]) -> Prepared:
    """The change to one state.  forced: whoever holds the run loses it.  columns: set from parameters `new_NAME`.

    over: this is the end; what was asked of its code came too late.
    """
    where = [run.c.id == sa.bindparam("run_"), sa.or_(*(run.c.state == old for old in _BEFORE[new]))]
    values = {"state": new.value, "seq": run.c.seq + 1} | stamps(new)
    if over:
        values |= {"asked": None, "asked_by": None}
    values |= {name: sa.bindparam(f"new_{name}", type_=run.c[name].type) for name in columns}
    if "source" in columns:
        values["source"] = sa.func.coalesce(run.c.source, values["source"])
    if began:
        values["started"] = sa.func.coalesce(run.c.started, sa.bindparam("began", type_=sa.BigInteger()))
    if due:
        soon = clock.now() + sa.bindparam("wait", type_=sa.BigInteger())
        values["due_at"] = sa.case((run.c.gate == 0, NEVER), else_=soon) if new is State.PENDING else soon
    if forced:
        values["epoch"] = run.c.epoch + 1
        if new is State.RETRYING:  # it began, and shall again: its deployment must have a place for it once more
            of_it = (deployment.c.namespace == run.c.namespace, deployment.c.name == run.c.deployment)
            limited = run.c.gate.is_not(None) | sa.exists().where(*of_it, deployment.c.concurrency.is_not(None))
            values["gate"] = sa.case((limited, 0))
            values["due_at"] = sa.case((limited, NEVER), else_=values.get("due_at", run.c.due_at))
    else:
        where.append(run.c.epoch == sa.bindparam("mine"))
    return Prepared(sa.update(run).where(*where).values(values).returning(*told_columns()))


def told_columns() -> list[sa.ColumnElement[Any]]:
    """What an UPDATE of runs returns for `tell_changes`."""
    return [*(run.c[name] for name in _TOLD), clock.now().label("now")]


_hold = Prepared(
    sa.select(run.c.namespace)
    .where(run.c.id == sa.bindparam("run_"), run.c.epoch == sa.bindparam("mine"))
    .with_for_update(read=True)
)


async def hold(connection: AsyncConnection, run_id: str, epoch: int) -> str:
    """Make sure that the run is ours until the end of this transaction.  Returns its namespace.

    Nobody can claim it meanwhile.  Raises StaleEpochError.
    """
    rows = await _hold.fetch(connection, run_=run_id, mine=epoch)
    if not rows:
        raise stale(run_id, epoch)
    return str(rows[0]["namespace"])


def _journalling(insert: Any) -> Any:
    names: tuple[str, ...] = ("state", "name", "result", "error", "epoch", "started", "ended", "format")
    names += ("parent", "label", "takes", "source")
    binds = {name: sa.bindparam(name, type_=journal.c[name].type) for name in ("run_id", "call", "namespace", *names)}
    statement = insert(journal).values(binds)
    kept = {name: statement.excluded[name] for name in names}
    return statement.on_conflict_do_update(index_elements=["run_id", "call"], set_=kept)


_journal = Prepared(_journalling(postgresql.insert), _journalling(sqlite.insert))
_log = inserting(run_log, "namespace", "run_id", "epoch", "at", "level", "line")


async def record_calls(connection: AsyncConnection, run_id: str, epoch: int, calls: Iterable[TaskCall]) -> None:
    """Write finished task calls into the journal; a call that was tried before is overwritten.

    Raises StaleEpochError.
    """
    namespace = await hold(connection, run_id, epoch)
    same = {"run_id": run_id, "namespace": namespace, "epoch": epoch, "format": FORMAT}
    await _journal.many(connection, [same | _call_row(call) for call in calls])


class Entry(NamedTuple):
    """A finished call on its way into the journal."""

    run_id: str
    epoch: int
    call: TaskCall


_OF_ENTRY = (
    *("run_id", "call", "epoch", "state", "name", "result", "error", "started", "ended", "format"),
    *("parent", "label", "takes", "source"),
)


def _recording() -> str:
    """PostgreSQL takes calls of many runs with one statement: those of runs that are held under these epochs."""
    kinds = ["bigint" if isinstance(journal.c[name].type, sa.BigInteger) else "text" for name in _OF_ENTRY]
    arrays = ", ".join(f"CAST(${at} AS {kind}[])" for at, kind in enumerate(kinds, 3))
    changed = [name for name in _OF_ENTRY if name not in ("run_id", "call")]
    return f"""
WITH mine AS (
  SELECT run.id, run.epoch, run.namespace FROM run
  JOIN unnest(CAST($1 AS text[]), CAST($2 AS bigint[])) AS held (id, epoch)
    ON run.id = held.id AND run.epoch = held.epoch
  ORDER BY run.id FOR SHARE OF run
)
INSERT INTO journal (namespace, {", ".join(_OF_ENTRY)})
SELECT mine.namespace, {", ".join(f"given.{name}" for name in _OF_ENTRY)}
FROM unnest({arrays}) AS given ({", ".join(_OF_ENTRY)}) JOIN mine ON mine.id = given.run_id AND mine.epoch = given.epoch
ON CONFLICT (run_id, call) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in changed)}
RETURNING run_id, epoch"""  # noqa: S608 -- names of our own columns


_record_at_once = _recording()


async def record_entries(database: Database, entries: Sequence[Entry]) -> set[tuple[str, int]]:
    """Write calls of any number of runs in one transaction; of a call that comes twice the last one counts.

    Returns (run, epoch) of those that were written: the others are not held under these epochs any more.
    """
    last = {(each.run_id, each.call.key): each for each in entries}
    runs = dict.fromkeys((each.run_id, each.epoch) for each in last.values())
    if database.is_sqlite:
        async with database.begin() as connection:
            return {held for held in runs if await _record_of(connection, held, last.values())}
    rows = [
        {"run_id": each.run_id, "epoch": each.epoch, "format": FORMAT} | _call_row(each.call) for each in last.values()
    ]
    columns = [[run_id for run_id, _ in runs], [epoch for _, epoch in runs]]
    columns += [[row[name] for row in rows] for name in _OF_ENTRY]
    async with database.read() as connection:
        found = await on_driver(connection, _record_at_once, lambda driver: driver.fetch(_record_at_once, *columns))
    return {(row["run_id"], row["epoch"]) for row in found}


async def _record_of(connection: AsyncConnection, held: tuple[str, int], entries: Iterable[Entry]) -> bool:
    try:
        await record_calls(connection, *held, [each.call for each in entries if (each.run_id, each.epoch) == held])
    except StaleEpochError:
        return False
    return True


class Recorded(NamedTuple):
    """The completed calls of a run, by key.  results: JSON.  calls: what is known of them besides."""

    results: dict[str, bytes]
    calls: dict[str, RecordedCall]


async def recorded_calls(connection: AsyncConnection, run_ids: Sequence[str]) -> dict[str, Recorded]:
    """The completed calls of each run."""
    found = {run_id: Recorded({}, {}) for run_id in run_ids}
    names = ("run_id", "call", "result", "name", "source", "parent")
    wanted = (journal.c.run_id.in_(run_ids), journal.c.state == State.COMPLETED.value)
    for row in await connection.execute(sa.select(*(journal.c[name] for name in names)).where(*wanted)):
        found[row.run_id].results[row.call] = (row.result or "null").encode()
        found[row.run_id].calls[row.call] = RecordedCall(row.name, row.source or "", row.parent)
    return found


async def write_logs(connection: AsyncConnection, run_id: str, epoch: int, lines: Iterable[LogLine]) -> None:
    """Keep lines of the run's log, in order.  Raises StaleEpochError."""
    namespace = await hold(connection, run_id, epoch)
    same = {"namespace": namespace, "run_id": run_id, "epoch": epoch}
    await _log.many(
        connection, [same | {"at": each.at, "level": each.level, "line": clean(each.line)} for each in lines]
    )


def clean(text: str) -> str:
    """Text as every database takes it: without NUL and lone surrogates, at most LINE_LIMIT characters."""
    kept = text if len(text) <= LINE_LIMIT else f"{text[:LINE_LIMIT]}… ({len(text)} characters)"
    return kept.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def stale(run_id: str, epoch: int) -> StaleEpochError:
    """The error for a write with an epoch that is over."""
    return StaleEpochError(
        f"run {run_id} was claimed or moved by somebody else since epoch {epoch}; nothing is written"
    )


def _new_row(new: NewRun) -> dict[str, Any]:
    row = asdict(new)
    del row["actor"]
    row |= {"fairness_key": fairness_key(new.fairness_key)}
    row |= {"limits": json.dumps(new.limits), "tags": json.dumps(new.tags) if new.tags else None}
    return row | {"state": _first_state(new).value, "seq": 1, "format": FORMAT}


def _first_state(new: NewRun) -> State:
    return State.SCHEDULED if new.gate == 0 else State.PENDING


def _first_event(new: NewRun, at: Instant) -> dict[str, Any]:
    same = {"run_id": new.id, "seq": 1, "namespace": new.namespace, "epoch": 0, "at": at}
    detail = f"waits for a place of deployment {new.deployment}" if new.gate == 0 else ""
    return same | {"state": _first_state(new).value, "detail": detail, "actor": new.actor}


def stamps(new: State) -> dict[str, Any]:
    """What a state says about claim, beginning and end."""
    if new is State.RUNNING:
        return {"started": sa.func.coalesce(run.c.started, clock.now()), "ended": None, "waiting_for": None}
    return {"worker": None, "lease_until": 0, "ended": clock.now() if new.is_final else None, "waiting_for": None}


def tell_changes(
    target: AsyncConnection | Writes,
    rows: Sequence[Row],
    details: Sequence[str],
    actor: str,
    *,
    goes_on: bool = False,
    told_as: str = "",
) -> None:
    """One `run_event` and one event for each run that an UPDATE has changed just now.

    rows: as RETURNING `told_columns()` gave them.  details: one for each, already `clean`.
    """
    noted, told = [], []
    for row, detail in zip(rows, details, strict=True):
        kept = {name: row[name] for name in ("seq", "namespace", "state", "epoch")}
        noted.append({"run_id": row["id"], "detail": detail, "actor": actor, "at": row["now"]} | kept)
        more: dict[str, Any] = {"detail": detail} if detail else {}
        if State(row["state"]).is_final:
            more["final"] = not goes_on
        told.append((service_lane(row["id"]), _told(row, row["now"], told_as, **more)))
    at_the_end(target, _note, noted)
    publish_each(target, told)


async def _tell_end(connection: AsyncConnection, row: Row, result: str | None) -> None:
    """The fact that a firing with `wait: completed` waits for."""
    ended = json.loads(result) if result else None
    fact = RunEnded(step=row["step"], state=row["state"], result=ended, run_id=row["id"])
    body = msgspec.json.encode(fact)
    await tell_firing(connection, namespace=row["namespace"], firing_id=row["firing_id"], lane=row["lane"], fact=body)


def _told(row: Mapping[str, Any], at: Instant, told_as: str = "", **more: Any) -> Outgoing:
    """The event of a change."""
    state = row["state"]
    name = told_as or ("started" if state == State.RUNNING else state)  # design.md §4 names the event of `running` so
    data = {"run": row["id"], **{key: row[key] for key in ("flow", "pool", "state", "attempt", "retries")}}
    data |= {name: row[column] for name, column in _ORIGIN if row[column]}
    return system_event(
        f"penstock.run.{name}",
        subject=f"run/{row['id']}",
        data=data | more,
        at=at,
        namespace=row["namespace"],
        event_id=derived_id("run", row["id"], str(row["seq"])),
        correlationid=row["correlationid"],
        causationid=row["causationid"],
        traceparent=row["traceparent"],
        hops=row["hops"],
    )


def _call_row(call: TaskCall) -> dict[str, Any]:
    ended = {"started": call.started, "ended": call.ended, "error": None if call.error is None else clean(call.error)}
    graph = {"parent": call.parent, "label": clean(call.label) or None, "source": call.source or None}
    graph["takes"] = json.dumps(call.takes) if call.takes else None
    same = {"call": call.key, "name": call.task, "state": call.state.value, "result": call.result.decode()}
    return same | ended | graph


async def _refused(connection: AsyncConnection, run_id: str, epoch: int | None, new: State) -> PenstockError:
    """Why a change was not made."""
    query = sa.select(run.c.state, run.c.epoch).where(run.c.id == run_id)
    row = (await connection.execute(query)).first()
    if row is None:
        return RunNotFoundError(f"there is no run {run_id}; `penstock runs list` shows those there are")
    if epoch is not None and row.epoch != epoch:
        return stale(run_id, epoch)
    return TransitionError(run_id, row.state, new.value)
