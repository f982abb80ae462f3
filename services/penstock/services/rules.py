"""Applying rule files: checked as a whole, then one row that every engine takes up, or nothing at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.automations import Automation, Problem, RuleSet, RunStep, load_texts
from penstock.automations.deployments import open_schema
from penstock.automations.documents import read as read_document
from penstock.events.ids import derived_id
from penstock.services import hints as hint
from penstock.services.context import Context
from penstock.services.database import Database, clock, tables
from penstock.services.database.records import write_audit

PATIENCE = 10.0  # seconds for the first worker to register its flows
_LOOK = 0.2  # seconds between two looks for it
_LOCK = 0x72756C65  # two processes must not both write the revision after the same one


@dataclass(frozen=True, slots=True)
class Applied:
    """The files are good. revision: now in force (None: it was only a check); changed: whether it is a new one."""

    revision: int | None
    changed: bool
    problems: tuple[Problem, ...] = ()  # warnings


@dataclass(frozen=True, slots=True)
class Refused:
    """Something is wrong; what was in force before still is."""

    problems: tuple[Problem, ...]


async def check(context: Context, files: Mapping[str, str], *, namespace: str) -> Applied | Refused:
    """Check files against the flows that are registered (without any, what they `run` is a warning) and against what
    is in force: an edit of `when` is a warning, since the state of the rule starts anew."""
    registry = await registered_flows(context.database, namespace)
    found, problems = await _load(files, registry or None, namespace)
    if any(problem.severity == "error" for problem in problems):
        return Refused(problems)
    live = await _live_rules(context.database, namespace)
    anew = [problem for rule in found.rules if (problem := _begins_anew(rule, live.rule(*reversed(rule.key))))]
    return Applied(None, changed=False, problems=tuple(sorted({*problems, *anew})))


async def apply(
    context: Context,
    files: Mapping[str, str],
    actor: str,
    *,
    namespace: str | None = None,
    patience: float = PATIENCE,
) -> Applied | Refused:
    """Put files in force for a namespace (none: the settings'), in the place of all that was.

    files: {name: text}.  patience: seconds to wait for the first registration of flows, where a rule runs one.
    """
    namespace = namespace or context.settings.namespace
    found, problems = await _load(files, None, namespace)
    if any(problem.severity == "error" for problem in problems):  # told with what is known of flows, without waiting
        return await check(context, files, namespace=namespace)
    registry = await _flows_for(context.database, namespace, found, patience)
    found, problems = await _load(files, registry, namespace)
    if any(problem.severity == "error" for problem in problems):
        return Refused(problems)
    number, changed = await _write(context.database, files, actor, namespace)
    if changed:
        await context.hints.give(hint.REVISION)
    return Applied(number, changed, problems)


async def registered_flows(database: Database, namespace: str) -> dict[str, Mapping[str, Any]]:
    """The parameter schemas of flows and deployments, by every name that a rule may use; none before the first flow.

    Of a deployment it is that of its flow, as a worker has registered it last; what it has a default for is required
    no more.
    """
    row, deployed = tables.flow, tables.deployment
    query = sa.select(row.c.name, row.c.module, row.c.parameters).where(row.c.namespace == namespace)
    named = sa.select(deployed.c.name, deployed.c.flow, deployed.c.parameters, deployed.c.parameter_schema)
    found: dict[str, Mapping[str, Any]] = {}
    async with database.read() as connection:
        for name, module, parameters in await connection.execute(query):
            schema = json.loads(parameters)
            found[f"{module}:{name}"] = found[name] = schema
        flows = dict(found)
        if flows:
            for name, of, defaults, schema in await connection.execute(named.where(deployed.c.namespace == namespace)):
                found[name] = open_schema(flows.get(of) or json.loads(schema), json.loads(defaults))
    return found


async def _live_rules(database: Database, namespace: str) -> RuleSet:
    row = tables.revision
    query = sa.select(row.c.files).where(row.c.namespace == namespace).order_by(row.c.id.desc()).limit(1)
    async with database.read() as connection:
        files = (await connection.execute(query)).scalar()
    return await asyncio.to_thread(load_texts, json.loads(files) if files else {})


def _begins_anew(rule: Automation, live: Automation | None) -> Problem | None:
    """The warning that what a rule has seen so far is forgotten; None where nothing is."""
    if live is None or live.when_digest == rule.when_digest or live.rule.stateless:
        return None
    message = f"`when` of `{rule.name}` has changed: its windows and timers start anew"
    hint = "what they have seen so far is forgotten when this is applied"
    return Problem(rule.file, rule.line, 1, message, hint, "warning")


def digest_of(files: Mapping[str, str]) -> str:
    """The same for the same files, whatever their order."""
    return derived_id("revision", *(part for name in sorted(files) for part in (name, files[name])))


async def _flows_for(
    database: Database, namespace: str, rules: RuleSet, patience: float
) -> dict[str, Mapping[str, Any]]:
    """The registry; where a rule runs a flow and there is none yet, its first registration is waited for."""
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        registry = await registered_flows(database, namespace)
        if registry or not _uses_flows(rules) or asyncio.get_running_loop().time() >= deadline:
            return registry
        if await _has_its_worker(database, namespace):
            return await registered_flows(database, namespace)
        await asyncio.sleep(_LOOK)


async def _has_its_worker(database: Database, namespace: str) -> bool:
    """SQLite: whether the one worker there can be is there.  It comes with its flows, in one transaction."""
    if not database.is_sqlite:
        return False
    query = sa.select(sa.exists().where(tables.worker.c.namespace == namespace))
    async with database.read() as connection:
        return bool((await connection.execute(query)).scalar())


def _uses_flows(rules: RuleSet) -> bool:
    return any(
        isinstance(step, RunStep) for rule in rules.rules for step in (*rule.then, *rule.on_resolve, *rule.on_error)
    )


async def _load(
    files: Mapping[str, str], flows: Mapping[str, Mapping[str, Any]] | None, namespace: str
) -> tuple[RuleSet, tuple[Problem, ...]]:
    """In a thread: ten thousand rules take seconds, and whoever emits meanwhile must have an answer."""
    return await asyncio.to_thread(_loaded, files, flows, namespace)


def _loaded(
    files: Mapping[str, str], flows: Mapping[str, Mapping[str, Any]] | None, namespace: str
) -> tuple[RuleSet, tuple[Problem, ...]]:
    found = load_texts(files, flows=flows)
    return found, tuple(sorted({*found.problems, *_foreign(files, namespace)}))


def _foreign(files: Mapping[str, str], namespace: str) -> list[Problem]:
    """Files that name another namespace: whoever may write here may not write there."""
    problems = []
    for name, text in files.items():
        document, _ = read_document(name, text)
        value = document.value if document else None
        said = value.get("namespace", namespace) if isinstance(value, dict) else namespace
        if document and said != namespace:
            message = f"namespace `{said}`: these rules are applied to `{namespace}`"
            problems.append(document.problem(("namespace",), message, "remove the key, or apply the file there"))
        elif document and isinstance(value, dict) and namespace != "default" and "namespace" not in value and value:
            problems.append(document.problem((), f"no `namespace` is named, so it is `default`, not `{namespace}`"))
    return problems


async def _write(database: Database, files: Mapping[str, str], actor: str, namespace: str) -> tuple[int, bool]:
    """The revision in force and whether it is new; nothing is written where the files have not changed."""
    digest, row = digest_of(files), tables.revision
    async with database.begin() as connection:
        if not database.is_sqlite:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        newest = await _newest(connection, namespace)
        if newest is not None and newest[1] == digest:
            return newest[0], False
        values = {"namespace": namespace, "digest": digest, "files": json.dumps(dict(files)), "actor": actor}
        insert = sa.insert(row).values(created=clock.now(), **values).returning(row.c.id)
        number = int((await connection.execute(insert)).scalar_one())
        detail = {"digest": digest, "files": sorted(files)}
        await write_audit(
            connection,
            namespace=namespace,
            actor=actor,
            action="revision.applied",
            object_=f"revision/{number}",
            detail=detail,
        )
    return number, True


async def _newest(connection: AsyncConnection, namespace: str) -> tuple[int, str] | None:
    row = tables.revision
    query = sa.select(row.c.id, row.c.digest).where(row.c.namespace == namespace).order_by(row.c.id.desc()).limit(1)
    found = (await connection.execute(query)).one_or_none()
    return (int(found.id), str(found.digest)) if found else None
