"""The forms of `when` as values: what a rule file compiles to, and what the state machines read.

    Trigger = Count | Absent | Sequence | AtLeast | Metric | Changed | Schedule

Spans (`within`, `over`, `for`, …) are whole microseconds, as instants are. A rule is compared by identity: it is
compiled once per revision, and its machine is kept beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from penstock.events.instants import SECOND, Instant
from penstock.triggers.conditions import Condition
from penstock.triggers.pattern import Pattern

LATENESS = 30 * SECOND
Per: TypeAlias = tuple[str, ...]  # dotted paths from the event's root; () gives the one key null
Statistic: TypeAlias = Literal["avg", "min", "max", "sum", "count", "rate", "p50", "p95", "p99", "delta"]
Operator: TypeAlias = Literal[">", ">=", "<", "<="]
Mode: TypeAlias = Literal["single", "queued", "restart", "parallel", "keep_latest"]
Keep: TypeAlias = Literal["first", "last", "all"]


class Unset(Enum):
    """`from` or `to` that is not given: null is a value."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """One place of a rule where events come in.

    pattern: type and `where`, together.
    per: where these events carry the key. The loader writes a composite's `per` into each leaf without one of its own.
    """

    pattern: Pattern
    per: Per = ()


@dataclass(frozen=True, slots=True, eq=False)
class Count:
    """`event`: at the count-th match inside `within`; count 1 needs, and heeds, no `within`."""

    leaf: Leaf
    count: int = 1
    within: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Absent:
    """`absent`: nothing matched `leaf` within `within` of an `after` event, or, without one, of the last match."""

    leaf: Leaf
    within: int
    after: Leaf | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """`sequence`: each of `steps` fired in that order of event time, first to last within `within` (None: no limit)."""

    steps: tuple[Trigger, ...]
    within: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AtLeast:
    """`all` (n of n), `any` (n = 1: one event fires it once), `at_least`: n different ones of `of` within `within`."""

    n: int
    of: tuple[Trigger, ...]
    within: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """`metric`: the statistic of the samples at `value` in (t − over, t] has compared so for `for_`.

    value: dotted path from the event's root, e.g. "data.celsius"; only JSON numbers are samples.
    clear: it resolves strictly past this (None: once the comparison no longer holds).
    """

    leaf: Leaf
    value: str
    over: int
    stat: Statistic
    op: Operator
    threshold: float
    for_: int = 0
    clear: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """`changed`: the value at `path` differs from the last one seen for the key, and, with `for_`, stays so that long.

    from_, to: JSON values; UNSET: any.
    """

    leaf: Leaf
    path: str
    from_: Any = UNSET
    to: Any = UNSET
    for_: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """`schedule`: at each due time.

    next_after: the first due time strictly after an instant (None: there is none any more). Zones, calendars and jitter
    are in it; it must give the same answer for the same instant for ever, so jitter is derived, not drawn. It is asked
    for the loading of the rule and then for each due time that it gave.
    missed: what happens to due times that the clock has passed by more than `tolerance` when the rule is asked
    again, after an outage: "all" fires each at its time, "latest" the last of them, "none" none of them.
    """

    next_after: Callable[[Instant], Instant | None]
    missed: Literal["all", "latest", "none"] = "all"
    tolerance: int = 60 * SECOND
    overlap: Literal["allow", "skip"] = "allow"  # for the dispatcher; the core passes over it


Trigger: TypeAlias = Count | Absent | Sequence | AtLeast | Metric | Changed | Schedule


@dataclass(frozen=True, slots=True)
class Dedupe:
    """`dedupe`: drop a matching event whose `by` (paths) was let through less than `for_` before."""

    by: Per
    for_: int


@dataclass(frozen=True, slots=True)
class Debounce:
    """`debounce`: one firing once `quiet` has passed without another of its key, `max_` after the first at the latest.

    It carries the events of all; `keep` says whose `trigger.value` and `trigger.from` (all: the last one's).
    """

    quiet: int
    max_: int | None = None
    keep: Keep = "last"


@dataclass(frozen=True, slots=True)
class Limit:
    """`limit: n/D`, and `cooldown: D` as 1/D: at most n firings of a key in any (t − span, t].

    name: as the rule says it, for the reason.
    """

    n: int
    span: int
    name: Literal["cooldown", "limit"] = "limit"


@dataclass(frozen=True, slots=True)
class Storm:
    """`storm: n/D`: above that many firings of the automation in D, one digest. Live only: the engine's."""

    n: int
    span: int


@dataclass(frozen=True, slots=True)
class Stages:
    """Flow control, in its fixed order; what is None or () lets everything through."""

    dedupe: Dedupe | None = None
    condition: Condition | None = None  # `if`
    debounce: Debounce | None = None
    limits: tuple[Limit, ...] = ()
    mode: Mode = "parallel"
    storm: Storm | None = None


@dataclass(frozen=True, eq=False)
class Rule:
    """What one automation means to the core.

    when_digest: changes exactly when what `when` means changes; state belongs to it.
    order_event_time, lateness, accept_late (`late: accept`), grace: the keys of the outermost `when`.
    vars: what `vars.NAME` is in `if`.
    """

    namespace: str
    name: str
    when_digest: str
    trigger: Trigger
    stages: Stages = Stages()
    enabled: bool = True
    order_event_time: bool = False
    lateness: int = LATENESS
    accept_late: bool = False
    grace: int = 0
    vars: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether it is an `event` with count 1: it has no window, and fires for an event of any age."""
        return isinstance(self.trigger, Count) and self.trigger.count == 1

    @property
    def stateless(self) -> bool:
        """Whether one event decides alone, so that stage one can: `if` needs no memory, nor has `mode` any here."""
        stages = self.stages
        memory = stages.dedupe or stages.debounce or stages.limits
        return self.plain and not self.order_event_time and not memory

    @property
    def needs_loading(self) -> bool:
        """Whether something runs from its loading: a schedule, or a watch without `after` and without `per`."""
        return any(_from_loading(trigger) for trigger in triggers(self.trigger))


def children(trigger: Trigger) -> tuple[Trigger, ...]:
    """The triggers directly below a composite, in order."""
    if isinstance(trigger, Sequence):
        return trigger.steps
    return trigger.of if isinstance(trigger, AtLeast) else ()


def triggers(trigger: Trigger) -> tuple[Trigger, ...]:
    """The trigger and all below it, depth first."""
    return trigger, *(each for child in children(trigger) for each in triggers(child))


def leaves_of(trigger: Trigger) -> tuple[Leaf, ...]:
    """Of one trigger and all below it, depth first; of `absent` the answer before the question."""
    if isinstance(trigger, Absent):
        return (trigger.leaf,) if trigger.after is None else (trigger.leaf, trigger.after)
    if isinstance(trigger, Schedule):
        return ()
    if isinstance(trigger, Sequence | AtLeast):
        return tuple(leaf for child in children(trigger) for leaf in leaves_of(child))
    return (trigger.leaf,)


def leaves(rule: Rule) -> tuple[Leaf, ...]:
    """The places where events come in; a leaf's number is its index.

    Stage one looks for each leaf's pattern, computes `key_of(event, leaf.per)`, and sends, per key, the numbers hit.
    """
    return leaves_of(rule.trigger)


def _from_loading(trigger: Trigger) -> bool:
    if isinstance(trigger, Schedule):
        return True
    return isinstance(trigger, Absent) and trigger.after is None and not trigger.leaf.per
