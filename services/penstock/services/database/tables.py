"""The tables. Instants are microseconds since the epoch; JSON is stored as text, so that any character survives.

Every row that a user could name carries its namespace. What grows is pruned by age (`pruning.py`), but for the audit.
Records and bodies carry a format version: a process reads its own and the one before.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}
)

# SQLite numbers rows by itself only for a plain INTEGER key.
Serial = BigInteger().with_variant(Integer(), "sqlite")


def _text(name: str, *, default: str | None = None, null: bool = False) -> Column[Any]:
    return Column(name, Text, nullable=null, server_default=default)


def _int(name: str, *, default: int | None = None, null: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=null, server_default=None if default is None else sa.text(str(default)))


def _namespace() -> Column[Any]:
    return Column("namespace", Text, nullable=False, server_default="default")


# --- the stream: ownership, positions, time -------------------------------------------------------------------------

topic = Table("topic", metadata, Column("name", Text, primary_key=True), _text("topic_id"), _int("partitions"))

position = Table(
    "position",
    metadata,
    _text("topic"),  # a topic of the bus, or "services": the lanes of the other services' outbox
    _int("partition"),
    _int("position", default=-1),  # the next offset to read; -1: from the beginning
    _int("epoch", default=0),  # raised by each taking; a commit with an older one changes nothing
    _text("owner", null=True),
    _int("lease_until", default=0),
    _int("revision", default=0),  # the revision of the rules in force at `position`
    _int("updated", default=0),
    PrimaryKeyConstraint("topic", "partition"),
)

member = Table(
    "member",  # processes that share the partitions of a topic
    metadata,
    Column("id", Text, primary_key=True),
    _text("kind"),
    _int("seen_until"),
    _int("format", default=1),
)

origin = Table(
    "origin",  # the highest offset of each source partition that a match partition has applied
    metadata,
    _int("partition"),
    _text("origin_topic"),
    _int("origin_partition"),
    _int("origin_offset"),
    PrimaryKeyConstraint("partition", "origin_topic", "origin_partition"),
)

progress = Table(
    "progress",  # how far the owner of each source partition has read, as a match partition has been told
    metadata,
    _int("partition"),
    _text("origin_topic"),
    _int("origin_partition"),
    _int("at"),
    PrimaryKeyConstraint("partition", "origin_topic", "origin_partition"),
)

seen = Table(
    "seen",  # identities of events that took part in stateful triggers: a second one changes nothing
    metadata,
    _int("partition"),
    Column("digest", LargeBinary, nullable=False),
    _int("at"),
    PrimaryKeyConstraint("partition", "digest"),
    Index(None, "at"),
)

state = Table(
    "state",  # one window: an automation's state for one key
    metadata,
    Column("id", Text, primary_key=True),  # derived_id(namespace, automation, when digest, key)
    _namespace(),
    _text("automation"),
    _text("when_digest"),
    _text("key"),  # JSON
    _int("partition"),
    Column("body", LargeBinary, nullable=False),
    _int("format", default=1),
    _int("expires_at"),  # when the stream's clock makes it matter no more
    _int("updated"),
    Index(None, "partition", "expires_at"),
)

# --- rules ----------------------------------------------------------------------------------------------------------

revision = Table(
    "revision",  # the rule files of a namespace as they were applied; the highest id is the one in force
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    _namespace(),
    _text("digest"),
    _text("files"),  # JSON: {name: text}
    _text("actor"),
    _int("created"),
)

partition_revision = Table(
    "partition_revision",  # where in its stream a partition changed to a revision
    metadata,
    _text("topic"),
    _int("partition"),
    _int("revision"),
    _int("from_offset"),
    _int("at"),
    PrimaryKeyConstraint("topic", "partition", "revision"),
)

flow = Table(
    "flow",  # what workers say that they can run
    metadata,
    _namespace(),
    _text("name"),
    _text("pool"),
    _text("module"),
    _text("parameters"),  # JSON Schema
    _text("options", default="{}"),  # JSON: limits, retries, timeout
    _text("version", null=True),  # the git commit of its folder
    _int("updated"),
    PrimaryKeyConstraint("namespace", "name"),
)

deployment = Table(
    "deployment",  # a flow as it is run under a name: with what, where, when, how many at once
    metadata,
    _namespace(),
    _text("name"),
    _text("flow"),  # as workers register it
    _text("module"),
    _text("pool"),
    _text("parameters"),  # JSON: defaults
    _text("parameter_schema"),  # JSON Schema of the flow's parameters when it was deployed
    _text("limits", default="[]"),  # JSON: names of limits
    _text("tags", default="[]"),  # JSON
    _int("paused", default=0),  # 1: its schedules start no run
    _int("concurrency", null=True),  # runs at once; null: any number
    _text("when_full", default="queue"),  # queue | cancel_new | replace
    _text("version", null=True),  # the git commit of the flow's folder when it was deployed
    _text("digest"),  # of definition, flow and version
    _text("definition"),  # JSON: as it was deployed
    _text("origin"),  # file | code
    _text("actor"),
    _int("format", default=1),
    _int("created"),
    _int("updated"),
    PrimaryKeyConstraint("namespace", "name"),
)

deployment_schedule = Table(
    "deployment_schedule",
    metadata,
    _namespace(),
    _text("deployment"),
    _text("id"),  # derived from spec and parameters
    _text("spec"),  # JSON: scheduler.due.Spec
    _text("parameters"),  # JSON: over those of the deployment
    _int("next_at"),
    _int("updated"),
    PrimaryKeyConstraint("namespace", "deployment", "id"),
    Index(None, "next_at"),
)

# --- decisions and what follows from them ---------------------------------------------------------------------------

decision = Table(
    "decision",
    metadata,
    Column("id", Text, primary_key=True),  # derived from its cause (rules.md, Identity)
    _namespace(),
    _text("automation"),
    _text("when_digest"),
    _text("kind"),  # fired | resolved | suppressed
    _text("key"),  # JSON
    _int("at"),
    _text("events"),  # JSON: ids of all events that took part
    _text("reason", default=""),
    _int("revision", default=0),
    _text("correlationid", null=True),
    _text("causationid", null=True),
    _text("traceparent", null=True),
    _int("created"),
    Index(None, "namespace", "automation", "at"),
    Index(None, "created"),
    Index(None, "correlationid"),
)
# What is inside a list PostgreSQL alone can index; SQLite looks through the decisions that pruning has left.
decision_events = sa.cast(decision.c.events, JSONB)
Index(
    "ix_decision_events",
    decision_events.label("ids"),
    postgresql_using="gin",
    postgresql_ops={"ids": "jsonb_path_ops"},
).ddl_if("postgresql")

suppression = Table(
    "suppression",  # firings that a stage held back: one row per automation, key, stage and minute
    metadata,
    _namespace(),
    _text("automation"),
    _text("key"),  # JSON
    _text("stage"),  # dedupe | if | throttle | mode | storm
    _int("minute"),  # the beginning of it, in microseconds
    _int("count"),
    _text("first_id"),  # of decisions
    _text("last_id"),
    _text("reason"),  # of the last one
    _int("told", default=0),  # 1: its event was published
    PrimaryKeyConstraint("namespace", "automation", "key", "stage", "minute"),
    Index(None, "told", "minute"),
)

storm = Table(
    "storm",  # the firings of an automation with `storm`, whatever their key
    metadata,
    _namespace(),
    _text("automation"),
    Column("log", LargeBinary, nullable=False),  # triggers.state.Passed, in order of time
    _int("dropped", default=0),  # since the last digest
    _int("due_at", null=True),  # when the digest is told
    _text("first_id", null=True),  # of decisions
    _text("last_id", null=True),
    PrimaryKeyConstraint("namespace", "automation"),
    Index(None, "due_at"),
)

notice = Table(
    "notice",  # what is told once and not again
    metadata,
    _namespace(),
    _text("what"),  # looped
    _text("object"),  # e.g. an automation of a revision
    _int("at"),
    PrimaryKeyConstraint("namespace", "what", "object"),
)

firing = Table(
    "firing",  # a decision being carried out: the cursor over the actions of its automation
    metadata,
    Column("id", Text, primary_key=True),  # the decision's
    _namespace(),
    _text("automation"),
    _int("revision", default=0),
    _text("lane"),  # "topic/partition" of the engine that runs it
    _text("status"),
    _text("key", null=True),  # JSON; for a rule whose `mode` looks at the firings of its key
    _text("body"),  # JSON: automations.firing.Firing
    _int("wake_at", null=True),  # a timer of the firing
    _int("format", default=1),
    _int("created"),
    _int("updated"),
    Index(None, "lane", "wake_at"),
    Index(
        "ix_firing_turn",
        *("namespace", "automation", "key"),
        postgresql_where=sa.text("key IS NOT NULL"),
        sqlite_where=sa.text("key IS NOT NULL"),
    ),
    Index(None, "namespace", "automation", "created"),
    Index(None, "created"),
)

fact = Table(
    "fact",  # the inbox of firings: written with the deed itself, taken by the owner of the lane
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    _namespace(),
    _text("firing_id"),
    _text("lane"),
    _text("body"),  # JSON: an automations.firing.Fact
    _int("created"),
    Index(None, "lane", "id"),
)

outbox = Table(
    "outbox",  # records to publish, in order of id within a lane; a published one is deleted
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    _text("lane"),
    _text("topic"),
    _int("partition", null=True),
    Column("key", LargeBinary, nullable=True),
    Column("value", LargeBinary, nullable=False),
    _text("headers", default="[]"),  # JSON: [[name, text], …]
    _int("created"),
    Index(None, "lane", "id"),
)

# --- runs -----------------------------------------------------------------------------------------------------------

run = Table(
    "run",
    metadata,
    Column("id", Text, primary_key=True),
    _namespace(),
    _text("flow"),
    _text("pool", default="default"),
    _text("state"),
    _text("parameters"),  # JSON; secrets stand in it as placeholders
    _text("nonce", default=""),  # placeholders that carry it are secrets (automations.templates)
    _int("priority", default=0),
    _text("queue", default="default"),  # of its pool; a worker serves all of them, or some
    _text("fairness_key", default=""),  # runs of one flow take turns between their keys
    _int("rank", default=0),  # who is first; set by a trigger as the row comes in (services.turns)
    _int("attempt", default=0),  # claims so far
    _int("retries", default=0),  # retries of the flow's own policy so far
    _int("epoch", default=0),  # raised by each claim; writes that carry an older one are refused
    _int("seq", default=0),  # state changes so far
    _int("earlier", default=0),  # tries before a person had it tried again; `attempt` and `retries` count from then
    _text("asked", null=True),  # what a person asks of the code that runs: cancel | suspend; nobody asks: none
    _text("asked_by", null=True),
    _text("worker", null=True),
    _int("lease_until", default=0),
    _int("due_at", default=0),
    _text("limits", default="[]"),  # JSON: names of limits
    _text("result", null=True),  # JSON
    _text("error", null=True),
    _text("firing_id", null=True),
    _text("lane", null=True),
    _text("step", null=True),
    _int("report", default=0),  # 1: its end is a fact for its firing (run with wait: completed)
    _text("correlationid", null=True),
    _text("causationid", null=True),
    _text("traceparent", null=True),
    _int("hops", default=0),
    _text("deployment", null=True),
    _text("version", null=True),  # the git commit of the flow's folder
    _text("tags", null=True),  # JSON
    _int("gate", null=True),  # for a deployment that runs so many at once: 0 waits for a place, 1 has one (places.py)
    _int("format", default=1),
    _int("created"),
    _int("started", null=True),
    _int("ended", null=True),
    _text("name", null=True),  # what it is shown as
    _text("source", null=True),  # digest of the flow's code that it was recorded with
    _text("waiting_for", null=True),  # paused or waiting by its own code: "answer" (or a time), "code" (a choice)
    Index(None, "firing_id"),
    Index(None, "created"),
    Index(None, "correlationid"),
)
# Whom a claim looks for. Written out, not bound: a partial index serves only a query that says the same.
WAITS_FOR_WORKER = run.c.state == sa.literal_column("'pending'")
WAITS_FOR_TIME = run.c.state.in_([sa.literal_column("'waiting'"), sa.literal_column("'retrying'")])
IS_HELD = run.c.state == sa.literal_column("'running'")
_in_order = (run.c.pool, run.c.priority.desc(), run.c.due_at, run.c.id)
Index("ix_run_pending", *_in_order, postgresql_where=WAITS_FOR_WORKER, sqlite_where=WAITS_FOR_WORKER)
_by_rank = (run.c.pool, run.c.rank, run.c.id)
Index("ix_run_ranked", *_by_rank, postgresql_where=WAITS_FOR_WORKER, sqlite_where=WAITS_FOR_WORKER)
_of_a_key = (run.c.pool, run.c.namespace, run.c.flow, run.c.fairness_key, run.c.priority, run.c.rank)
Index("ix_run_same", *_of_a_key, postgresql_where=WAITS_FOR_WORKER, sqlite_where=WAITS_FOR_WORKER)
Index("ix_run_parked", run.c.pool, run.c.due_at, postgresql_where=WAITS_FOR_TIME, sqlite_where=WAITS_FOR_TIME)
Index("ix_run_held", run.c.pool, run.c.lease_until, postgresql_where=IS_HELD, sqlite_where=IS_HELD)
# Likewise of the runs of deployments alone: a run without one is in neither.
OF_DEPLOYMENT = run.c.deployment.is_not(None)
COUNTS = sa.and_(run.c.gate.is_not(None), run.c.ended.is_(None))
_of_name = (run.c.namespace, run.c.deployment, run.c.created)
Index("ix_run_deployment", *_of_name, postgresql_where=OF_DEPLOYMENT, sqlite_where=OF_DEPLOYMENT)
Index("ix_run_place", *_of_name, postgresql_where=COUNTS, sqlite_where=COUNTS)

run_event = Table(
    "run_event",  # one row a change of state
    metadata,
    _text("run_id"),
    _int("seq"),
    _namespace(),
    _text("state"),
    _text("detail", default=""),
    _text("actor"),
    _int("epoch", default=0),
    _int("at"),
    PrimaryKeyConstraint("run_id", "seq"),
)

journal = Table(
    "journal",  # one row a finished task call
    metadata,
    _text("run_id"),
    _text("call"),  # flows.journal.call_key
    _namespace(),
    _text("name"),
    _text("state"),
    _text("result", null=True),  # JSON
    _text("error", null=True),
    _int("epoch"),
    _int("started"),
    _int("ended"),
    _int("format", default=1),
    _text("parent", null=True),  # key of the call that made it, "" for the flow itself
    _text("label", null=True),  # what it is shown as
    _text("takes", null=True),  # JSON: keys of the calls whose results it was given: the run's graph
    _text("source", null=True),  # digest of the code that ran
    PrimaryKeyConstraint("run_id", "call"),
)

run_wait = Table(
    "run_wait",  # what a run's code waits for, beside a time; the answer goes into the journal under the same call
    metadata,
    _text("run_id"),
    _text("call"),
    _namespace(),
    _text("kind"),  # approval | event
    _text("status"),  # open | matched: the answer is known, the run not yet told | done
    _text("body"),  # JSON: the id of the approval; types, pattern, topics of the event
    _text("answer", null=True),  # JSON, as it goes into the journal
    _int("expires_at", null=True),  # of an event; an approval has its own deadline
    _int("created"),
    _int("answered", null=True),
    _int("format", default=1),
    PrimaryKeyConstraint("run_id", "call"),
)
IS_UNTOLD = run_wait.c.status == sa.literal_column("'matched'")
IS_OPEN = run_wait.c.status == sa.literal_column("'open'")
Index("ix_run_wait_untold", run_wait.c.answered, postgresql_where=IS_UNTOLD, sqlite_where=IS_UNTOLD)
Index("ix_run_wait_open", run_wait.c.expires_at, postgresql_where=IS_OPEN, sqlite_where=IS_OPEN)

wait_position = Table(
    "wait_position",  # from where on a wait for an event counts in each partition
    metadata,
    _text("run_id"),
    _text("call"),
    _namespace(),
    _text("topic"),
    _int("partition"),
    _int("position"),
    _int("joined", default=0),  # 1: what lies before `position` has been looked through, the owner watches from there
    PrimaryKeyConstraint("run_id", "call", "topic", "partition"),
    Index(None, "topic", "partition", "joined"),
)
IS_NEW_WAIT = wait_position.c.joined == sa.literal_column("0")
_where = (wait_position.c.topic, wait_position.c.partition)
Index("ix_wait_position_new", *_where, postgresql_where=IS_NEW_WAIT, sqlite_where=IS_NEW_WAIT)

run_log = Table(
    "run_log",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    _namespace(),
    _text("run_id"),
    _int("epoch", default=0),
    _int("at"),
    _text("level"),
    _text("line"),
    Index(None, "run_id", "id"),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Text, primary_key=True),
    _namespace(),
    _text("pool"),
    _text("host"),
    _int("pid"),
    _int("started"),
    _int("seen"),
    _int("format", default=1),
)

# --- approvals and notifications ------------------------------------------------------------------------------------

approval = Table(
    "approval",
    metadata,
    Column("id", Text, primary_key=True),
    _namespace(),
    _text("firing_id", null=True),
    _text("lane", null=True),
    _text("step", null=True),
    _text("automation", null=True),
    _text("status"),  # pending | approved | rejected | expired | void
    _text("ask"),
    _text("body"),  # JSON: automations.approval.Approval
    _int("version", default=0),  # compare-and-set
    _int("expires_at"),
    _int("created"),
    _int("decided", null=True),
    _int("format", default=1),
    _text("run_id", null=True),  # of a run whose code asks
    _text("call", null=True),
    Index(None, "run_id"),
    Index(None, "namespace", "status", "created"),
    Index(None, "status", "expires_at"),
    Index(None, "firing_id"),
)

delivery = Table(
    "delivery",  # one notification to one channel; the record on penstock.notifications only wakes its sender
    metadata,
    Column("id", Text, primary_key=True),  # derived from decision and step: the idempotency key
    _namespace(),
    _text("firing_id", null=True),
    _text("lane", null=True),
    _text("step", null=True),
    _text("automation", null=True),
    _text("channel"),
    _text("status"),  # pending | delivered | failed
    _text("body"),  # JSON: text, title, retry; secrets stand in it as placeholders
    _text("nonce", default=""),
    _int("attempts", default=0),
    _int("epoch", default=0),
    _text("owner", null=True),
    _int("lease_until", default=0),
    _int("due_at", default=0),
    _text("response", null=True),  # JSON of the provider's answer, without secrets
    _text("error", null=True),
    _text("correlationid", null=True),
    _text("causationid", null=True),
    _text("traceparent", null=True),
    _int("hops", default=0),
    _int("format", default=1),
    _int("created"),
    _int("updated", default=0),
    Index(None, "status", "due_at"),
    Index(None, "created"),
    Index(None, "correlationid"),
)

# --- schedules ------------------------------------------------------------------------------------------------------

schedule = Table(
    "schedule",
    metadata,
    _namespace(),
    _text("name"),
    _text("digest"),  # of its definition: a changed one starts anew
    _text("spec"),  # JSON
    _int("next_at"),
    _int("updated"),
    PrimaryKeyConstraint("namespace", "name"),
    Index(None, "next_at"),
)

schedule_fire = Table(
    "schedule_fire",  # each due time is claimed once, however many schedulers there are
    metadata,
    _namespace(),
    _text("name"),
    _int("due"),
    _text("event_id"),
    _int("at"),
    PrimaryKeyConstraint("namespace", "name", "due"),
    Index(None, "at"),
)

# --- people ---------------------------------------------------------------------------------------------------------

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    _namespace(),
    _text("prefix"),  # the part that may be shown
    _text("hash"),  # SHA-256 of the whole key
    _text("actor"),  # user/owner
    _text("roles", default="[]"),
    _int("created"),
    _int("revoked", null=True),
    Index(None, "prefix", unique=True),
)

sign_in = Table(
    "sign_in",  # one-time sign-in links
    metadata,
    Column("hash", Text, primary_key=True),
    _namespace(),
    _text("key_id"),
    _int("expires_at"),
    _int("used", null=True),
)

session = Table(
    "session",
    metadata,
    Column("hash", Text, primary_key=True),  # SHA-256 of the cookie
    _namespace(),
    _text("key_id"),
    _text("actor"),
    _text("csrf"),
    _int("created"),
    _int("expires_at"),
    Index(None, "expires_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Text, primary_key=True),
    _namespace(),
    _int("at"),
    _text("actor"),
    _text("action"),  # "approval.decided", "revision.applied"
    _text("object"),  # "approval/<id>"
    _text("detail", default="{}"),  # JSON, without secrets
    Index(None, "namespace", "at"),
    Index(None, "object"),
)

lease = Table(
    "lease",  # one holder of a named duty: the rules watcher, the pruner
    metadata,
    Column("name", Text, primary_key=True),
    _text("owner"),
    _int("lease_until"),
)
