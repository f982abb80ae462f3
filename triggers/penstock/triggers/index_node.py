"""A bucket that tells many rules apart by one more field."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import chain, product
from operator import itemgetter
from typing import Any, Final, TypeAlias

from penstock.triggers.index_access import (
    Access,
    Place,
    Where,
    accesses,
    is_group,
    table_for,
    worth,
)
from penstock.triggers.index_buckets import (
    FEW,
    HOLDS,
    STRIDE,
    Bucket,
    Choices,
    Hit,
    Keys,
    Member,
    check,
    check_any,
    members_of,
)
from penstock.triggers.index_rule import Rule, reopened
from penstock.triggers.index_tables import Found, Table
from penstock.triggers.operators import ABSENT

MAX_GROUPS: Final = 24  # sets of exact fields looked up one after the other; a rule with yet another uses a part of it
MAX_LEVELS: Final = 24  # nodes below nodes
_RARELY: Final = 1 / 64  # odds at which a place is good enough to look for no better one
_NOTHING: Final[frozenset[int]] = frozenset()
Lookup: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]  # the key of an event, and its bucket


def added(bucket: Bucket | None, rule: Rule, level: int, consumed: frozenset[int], slots: tuple[int, ...]) -> Bucket:
    """The bucket with one rule more.  consumed, slots: those of the fields by which one comes to it."""
    if isinstance(bucket, tuple):
        if len(bucket) < FEW * STRIDE:
            return bucket + rule.member()
        node = Node(level, consumed.union(slots))
        for member in members_of(bucket):
            node.add(reopened(member, rule.slots, consumed.union(slots)))
        node.add(rule)
        return node
    if bucket is None:
        return rule.member() if rule.left() else Hit(rule.key, rule.branch)
    if isinstance(bucket, Hit):
        return (0, HOLDS, None, (bucket.key, (), bucket.branch), *rule.member())
    bucket.add(rule)
    return bucket


def removed(bucket: Bucket, rule: Rule) -> Bucket | None:
    """The bucket without a rule; None once it is empty."""
    if isinstance(bucket, tuple):
        at = STRIDE * next(place for place, member in enumerate(members_of(bucket)) if rule.is_member(member))
        rest = bucket[:at] + bucket[at + STRIDE :]
        return Hit(rest[3][0], rest[3][2]) if len(rest) == STRIDE and rest[1] == HOLDS else rest or None
    if isinstance(bucket, Node):
        bucket.remove(rule)
        return bucket if bucket.size else None
    return None


def _load(bucket: Bucket | None) -> int:
    if bucket is None:
        return 0
    if isinstance(bucket, tuple):
        return len(bucket) // STRIDE
    return 1 if isinstance(bucket, Hit) else bucket.size


class Node:
    """Rules by exact fields, one dictionary per set of fields; by other operators, one table per field and operator.

    What no field tells apart is checked one by one. Where a rule goes is decided as it comes, by what the rules that
    are there tell: to the table in which an event would come upon it least often. A better table that does not exist
    yet is made once it would have saved more than its look-ups cost.
    """

    __slots__ = (
        "_consumed",
        "_level",
        "_places",
        "_regret",
        "_tables",
        "finders",
        "further",
        "groups",
        "keys",
        "lacking",
        "lookups",
        "more",
        "quick",
        "rest",
        "size",
    )

    def __init__(self, level: int = 0, consumed: frozenset[int] = _NOTHING) -> None:
        self.size = 0  # rules, those in several places counted once
        self.keys: dict[tuple[Hashable, int], Hashable] = {}  # rules with nothing left to check
        self.rest: dict[tuple[Hashable, int], Member] = {}
        self.more = False  # whether there are keys, rest or lacking
        self.further = False  # whether there are these or finders
        # what readers use of the tables: replaced as a whole when a table comes or goes
        self.groups: tuple[tuple[Where, Table], ...] = ()
        self.lookups: tuple[Lookup, ...] = ()  # of the groups
        self.quick: tuple[Lookup, ...] = ()  # the same where `values` is a tuple
        self.finders: tuple[tuple[int, Callable[[Any, Found], None]], ...] = ()
        self.lacking: tuple[tuple[int, Table], ...] = ()
        self._level = level
        self._consumed = consumed
        self._tables: dict[Where, Table] = {}
        self._regret: dict[Where, float] = {}  # what tables that do not exist would have saved so far
        # where each rule went; the outermost node looks for it instead, since it may hold very many
        self._places: dict[tuple[Hashable, int], Where] = {}

    # reading

    def collect(self, values: Any, keys: Keys) -> None:
        """Add the keys of the rules that hold; `Matcher.match_json` has the first part of this in itself."""
        for pick, get in self.lookups:
            bucket = get(pick(values))
            if bucket is not None:
                enter(bucket, values, keys)
        if self.further:
            self.collect_further(values, keys)

    def collect_further(self, values: Any, keys: Keys) -> None:
        """Those that are not found by exact fields alone."""
        found: Found = []
        for slot, find in self.finders:
            value = values[slot]
            if value is not ABSENT:
                find(value, found)
        for bucket in found:
            if type(bucket) is tuple:
                check(bucket, values, keys)
            elif type(bucket) is Hit:
                keys.add(bucket.key)
            else:
                bucket.collect(values, keys)  # type: ignore[union-attr] # what is no tuple
        if self.more:
            self._collect_more(values, keys)

    def _collect_more(self, values: Any, keys: Keys) -> None:
        keys.update([*self.keys.values()])
        for slot, table in self.lacking:
            bucket = table.get(None) if values[slot] is ABSENT else None
            if bucket is not None:
                enter(bucket, values, keys)
        if self.rest:
            check(tuple(chain.from_iterable([*self.rest.values()])), values, keys)

    def collect_any(self, choices: Choices, keys: Keys) -> None:
        found: Found = []
        for slots, table in self.groups:
            found += _offered(slots, table.buckets, choices)
        for slot, find in self.finders:
            for value in choices[slot]:
                if value is not ABSENT:
                    find(value, found)
        for slot, table in self.lacking:
            lacking = table.get(None) if ABSENT in choices[slot] else None
            if lacking is not None:
                found.append(lacking)
        for bucket in {id(bucket): bucket for bucket in found}.values():
            if isinstance(bucket, tuple):
                check_any(bucket, choices, keys)
            else:
                bucket.collect_any(choices, keys)
        if self.keys:
            keys.update([*self.keys.values()])
        if self.rest:
            check_any(tuple(chain.from_iterable([*self.rest.values()])), choices, keys)

    # writing; one writer at a time

    def has(self, rule: Rule) -> bool:
        """Whether a rule lies here; for all but the outermost node."""
        return rule.name() in self._places

    def add(self, rule: Rule) -> None:
        self.size += 1
        name = rule.name()
        if self._level:
            self._places[name] = ()
        if not rule.left():
            self.keys[name] = rule.key
            self._look_further()
            return
        access = self._choose(rule)
        if access is None:
            self.rest[name] = rule.member()
            self._look_further()
            return
        if self._level:
            self._places[name] = access.places[0][0]
        inner = rule.found_by(access)
        for place in access.places:
            self._put(place, inner)

    def remove(self, rule: Rule) -> None:
        self.size -= 1
        name = rule.name()
        if self.keys.pop(name, self) is self and self.rest.pop(name, None) is None:
            access = self._where_is(rule)
            inner = rule.found_by(access)
            for place in access.places:
                self._take(place, inner)
        self._places.pop(name, None)
        self._look_further()

    def _ways(self, rule: Rule) -> Iterable[Access]:
        return accesses(rule.unused, rule.slots, self.groups, rule.spread)

    def _choose(self, rule: Rule) -> Access | None:
        """The way by which a rule is found; None: it is checked for every event that comes here."""
        if self._level >= MAX_LEVELS:
            return None
        best: Access | None = None
        missing: Access | None = None
        least = 2.0
        for access in self._ways(rule):
            odds = self._odds(access)
            if odds is None:
                missing = missing or (access if self._may_have(access) else None)
            elif odds <= _RARELY:
                return missing if missing is not None and self._pays(missing, odds) else access
            elif odds < least:
                best, least = access, odds
        return missing if missing is not None and self._pays(missing, least) else best

    def _odds(self, access: Access) -> float | None:
        """How likely an event is to come upon a rule there; None: there is a table missing."""
        odds = 0.0
        for where, key in access.places:
            table = self._tables.get(where)
            if table is None:
                return None
            load, known = _load(table.get(key)), worth(where)
            share = load / (table.rules + 1)
            if load >= known.few:  # too many to check one by one: good enough only if nothing is better
                share = max(share, 2 * _RARELY)
            odds += max(share, known.least)
        return odds

    def _may_have(self, access: Access) -> bool:
        """Whether a table may be made for it: sets of exact fields are bounded, each costs a look-up for any event."""
        return len(access.used) == 1 or len(self.groups) < MAX_GROUPS

    def _pays(self, access: Access, least: float) -> bool:
        """Whether to make a table, where the best place there is has odds of `least`."""
        if least > 1:
            return True
        where = access.places[0][0]
        found = worth(where)
        if found.odds * 2 > least and not (least and is_group(where)):
            return False
        # of a set of fields: what events would come upon in vain among the rules that are there by now
        size = self.size if is_group(where) else 1
        regret = self._regret.get(where, 0.0) + least * size
        self._regret[where] = regret
        return regret > found.cost * size

    def _where_is(self, rule: Rule) -> Access:
        known = self._places.get(rule.name())
        for access in self._ways(rule):
            where, key = access.places[0]
            table = self._tables.get(where)
            if table is not None and (known is None or known == where):
                inner = rule.found_by(access)
                if inner.is_in(table.get(key)) and all(place in self._tables for place, _ in access.places):
                    return access
        raise KeyError(rule.key)

    def _put(self, place: Place, inner: Rule) -> None:
        where, key = place
        table = self._tables.get(where)
        fresh = table is None
        if table is None:
            self._tables[where] = table = table_for(where)
        slots = where if is_group(where) else where[:1]
        table.put(key, added(table.get(key), inner, self._level + 1, self._consumed, slots))
        table.rules += 1
        if fresh:
            self._arrange()

    def _take(self, place: Place, inner: Rule) -> None:
        where, key = place
        table = self._tables[where]
        bucket = table.get(key)
        table.rules -= 1
        left = None if bucket is None else removed(bucket, inner)
        if left is not None:
            table.put(key, left)
            return
        table.drop(key)
        if not table.rules:
            del self._tables[where]
            self._arrange()

    def _arrange(self) -> None:
        """Tell the readers which tables there are."""
        rows = [*self._tables.items()]
        self.groups = tuple((where, table) for where, table in rows if is_group(where))
        self.lookups = tuple((itemgetter(*where), table.buckets.get) for where, table in self.groups)
        self.quick = tuple((_cutting(where), table.buckets.get) for where, table in self.groups)
        self.lacking = tuple((where[0], table) for where, table in rows if where[-1] == "absent")
        self.finders = tuple(
            (where[0], table.find) for where, table in rows if not is_group(where) and where[-1] != "absent"
        )
        self._look_further()

    def _look_further(self) -> None:
        """Say whether there is more than exact fields to look at."""
        self.more = bool(self.keys or self.rest or self.lacking)
        self.further = self.more or bool(self.finders)


def _cutting(slots: tuple[int, ...]) -> Callable[[Any], Any]:
    """The values at some slots of a tuple; neighbours are cut out, which is quicker, above all where they are all."""
    if len(slots) > 1 and slots == (*range(slots[0], slots[0] + len(slots)),):
        return itemgetter(slice(slots[0], slots[-1] + 1))
    return itemgetter(*slots)


def enter(bucket: Bucket, values: Any, keys: Keys) -> None:
    """Add the keys of the rules of a bucket that hold."""
    if type(bucket) is tuple:
        check(bucket, values, keys)
    else:
        bucket.collect(values, keys)  # type: ignore[union-attr] # what is no tuple


def _offered(slots: tuple[int, ...], buckets: dict[Any, Bucket], choices: Choices) -> list[Bucket]:
    """The buckets of a group that any choice of tokens leads to; walks the shorter of choices and group."""
    offers = [choices[slot] for slot in slots]
    combinations = 1
    for offer in offers:
        combinations *= len(offer)
    if len(slots) == 1:
        return [bucket for value in offers[0] if (bucket := buckets.get(value)) is not None]
    if combinations <= max(len(buckets), 64):
        return [bucket for key in product(*offers) if (bucket := buckets.get(key)) is not None]
    sets = [frozenset(offer) for offer in offers]
    return [
        bucket
        for key, bucket in [*buckets.items()]
        if all(value in some for value, some in zip(key, sets, strict=True))
    ]
