"""A bucket that tells many rules apart by one more field."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable
from itertools import product
from operator import itemgetter
from typing import Any, Final

from penstock.triggers import operators as op
from penstock.triggers.fields import Branch, Field
from penstock.triggers.index_access import TABLES, Place, places, rank, shape, tuples_of, wildcard_places
from penstock.triggers.index_buckets import ABSENT, FEW, Bucket, Check, Choices, Few, Hit, Keys, test_at
from penstock.triggers.index_tables import Table

MAX_SHAPES: Final = 24  # sets of exact fields looked up one after the other; a rule with yet another uses a part of it
MAX_LEVELS: Final = 24  # nodes below nodes
_COUNTERS: Final = 1 << 16
Group = tuple[tuple[int, ...], Callable[[Any], Any], dict[Any, Bucket]]


class Slots(dict[str, int]):
    """The slot of each path, and how often pieces of text occur in wildcards (by hash: an estimate, never lowered)."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = array("L", bytes(_COUNTERS * array("L").itemsize))

    def seen(self, piece: str) -> int:
        return self._seen[hash(piece) % _COUNTERS]

    def see(self, piece: str) -> None:
        self._seen[hash(piece) % _COUNTERS] += 1


class Rule:
    """A branch on its way into or out of the index: what is left to know, and how."""

    __slots__ = ("_single", "branch", "checked", "key", "slots", "unused")

    def __init__(
        self,
        key: Hashable,
        branch: Branch,
        slots: Slots,
        unused: tuple[Field, ...],
        checked: tuple[Field, ...],
    ) -> None:
        self.key, self.branch, self.slots, self.unused, self.checked = key, branch, slots, unused, checked
        self._single: Hit | Check | None = None

    def without(self, used: Iterable[Field], *, known: bool) -> Rule:
        """The same rule once fields were used to find it; unless `known` they are still to be checked."""
        gone = tuple(used)
        unused = tuple(field for field in self.unused if field not in gone)
        return Rule(self.key, self.branch, self.slots, unused, self.checked if known else self.checked + gone)

    def single(self) -> Hit | Check:
        """The bucket of this rule alone; one object, wherever it is put."""
        if self._single is None:
            fields = self.unused + self.checked
            tests = tuple([test_at(self.slots[field.path], field) for field in fields])
            self._single = Check(self.key, self.branch, tests, len(self.unused)) if fields else Hit(self.key)
        return self._single

    def is_at(self, member: Hit | Check) -> bool:
        if isinstance(member, Hit):
            return not self.unused and not self.checked and member.key == self.key
        return member.branch is self.branch and member.key == self.key


def reopened(member: Hit | Check, slots: Slots) -> Rule:
    """The rule that a bucket of one stands for."""
    if isinstance(member, Hit):
        return Rule(member.key, (), slots, (), ())
    fields = tuple(field for _, _, field in member.tests)
    return Rule(member.key, member.branch, slots, fields[: member.unused], fields[member.unused :])


def added(bucket: Bucket | None, rule: Rule, level: int) -> Bucket:
    """The bucket with one rule more."""
    if bucket is None:
        return rule.single()
    if isinstance(bucket, Node):
        bucket.add(rule)
        return bucket
    members = _members(bucket)
    if len(members) < FEW:
        return Few((*members, rule.single()))
    node = Node(level)
    for member in members:
        node.add(reopened(member, rule.slots))
    node.add(rule)
    return node


def removed(bucket: Bucket, rule: Rule) -> Bucket | None:
    """The bucket without a rule; None once it is empty."""
    if isinstance(bucket, Node):
        bucket.remove(rule)
        return None if bucket.empty() else bucket
    if isinstance(bucket, Few):
        at = next(place for place, member in enumerate(bucket.members) if rule.is_at(member))
        rest = bucket.members[:at] + bucket.members[at + 1 :]
        return rest[0] if len(rest) == 1 else Few(rest)
    return None


def _members(bucket: Bucket) -> tuple[Hit | Check, ...]:
    if isinstance(bucket, Few):
        return bucket.members
    assert isinstance(bucket, Hit | Check)  # noqa: S101 - nodes were asked before; for the type checker
    return (bucket,)


class Node:
    """Rules by exact fields, one dictionary per set of fields; by other operators, one table per field and operator.

    What no field tells apart is checked one by one.
    """

    __slots__ = ("_chosen", "_shapes", "groups", "keys", "lacking", "level", "lookups", "more", "rest", "tables")

    def __init__(self, level: int = 0) -> None:
        self.level = level
        self.keys: dict[Hashable, int] = {}  # rules with nothing left to check, and how often
        self.rest: dict[tuple[Hashable, int], Check] = {}
        self.groups: tuple[Group, ...] = ()
        self.lookups: tuple[tuple[Callable[[Any], Any], Callable[[Any], Bucket | None]], ...] = ()  # of the groups
        self.more = False  # whether there are keys, rest or lacking
        self.tables: tuple[tuple[int, str, Table], ...] = ()
        self.lacking: tuple[tuple[int, Table], ...] = ()
        self._shapes: dict[tuple[Hashable, int], tuple[Field, ...]] = {}  # where another shape than `shape` was taken
        self._chosen: dict[tuple[Hashable, int], tuple[Place, ...]] = {}  # where a rule's wildcards lie

    def empty(self) -> bool:
        return not (self.keys or self.rest or self.groups or self.tables or self.lacking)

    # reading

    def collect(self, values: Any, keys: Keys) -> None:
        for pick, get in self.lookups:
            bucket = get(pick(values))
            if bucket is not None:
                bucket.collect(values, keys)
        if self.tables:
            self._collect_tables(values, keys)
        if self.more:
            self._collect_more(values, keys)

    def _collect_tables(self, values: Any, keys: Keys) -> None:
        for slot, _, table in self.tables:
            value = values[slot]
            if value is not ABSENT:
                for bucket in table.find(value):
                    bucket.collect(values, keys)

    def _collect_more(self, values: Any, keys: Keys) -> None:
        keys.update([*self.keys])
        for slot, table in self.lacking:
            bucket = table.get(None) if values[slot] is ABSENT else None
            if bucket is not None:
                bucket.collect(values, keys)
        for check in [*self.rest.values()]:
            check.collect(values, keys)

    def collect_any(self, choices: Choices, keys: Keys) -> None:
        keys.update([*self.keys])
        for slots, _, buckets in self.groups:
            for bucket in _offered(slots, buckets, choices):
                bucket.collect_any(choices, keys)
        for slot, _, table in self.tables:
            for bucket in {
                id(bucket): bucket for value in choices[slot] if value is not ABSENT for bucket in table.find(value)
            }.values():
                bucket.collect_any(choices, keys)
        for slot, table in self.lacking:
            lacking = table.get(None) if ABSENT in choices[slot] else None
            if lacking is not None:
                lacking.collect_any(choices, keys)
        for check in [*self.rest.values()]:
            check.collect_any(choices, keys)

    # writing; one writer at a time

    def add(self, rule: Rule) -> None:
        name = (rule.key, id(rule.branch))
        if not rule.unused and not rule.checked:
            self.keys[rule.key] = self.keys.get(rule.key, 0) + 1
            self.more = True
            return
        fields = self._shape(rule)
        if fields:
            self._add_exact(rule, fields)
            return
        field = self._field(rule)
        if field is None:
            self.more = True
            self.rest[name] = rule.single()  # type: ignore[assignment] # it has something left to check
            return
        found, wildcards, precise = places(field)
        inner = rule.without([field], known=precise)
        slot = rule.slots[field.path]
        for place, key in found:
            self._put(slot, place, key, inner)
        if wildcards:
            self._chosen[name] = chosen = tuple(
                {self._rarest(slot, wildcard, rule.slots) for wildcard in wildcards}.difference(found)
            )
            for place, key in chosen:
                self._put(slot, place, key, inner)

    def remove(self, rule: Rule) -> None:
        name = (rule.key, id(rule.branch))
        if not rule.unused and not rule.checked:
            self._forget(rule.key)
            return
        if self.rest.pop(name, None) is not None:
            return
        fields = self._shapes.pop(name, None) or shape(rule.unused)
        if fields:
            self._remove_exact(rule, fields)
            return
        field = self._field(rule)
        assert field is not None  # noqa: S101 - else it was among the rest
        found, _, precise = places(field)
        inner = rule.without([field], known=precise)
        slot = rule.slots[field.path]
        for place, key in found:
            self._take(slot, place, key, inner)
        for place, key in self._chosen.pop(name, ()):
            self._take(slot, place, key, inner)

    def _regroup(self, groups: tuple[Group, ...]) -> None:
        self.groups = groups
        self.lookups = tuple((pick, buckets.get) for _, pick, buckets in groups)

    def _forget(self, key: Hashable) -> None:
        if self.keys[key] > 1:
            self.keys[key] -= 1
        else:
            del self.keys[key]

    def _field(self, rule: Rule) -> Field | None:
        """The field by which a rule without exact ones is found."""
        if self.level >= MAX_LEVELS or not rule.unused:
            return None
        best = max(rule.unused, key=rank)
        return best if rank(best) > 0 else None

    def _shape(self, rule: Rule) -> tuple[Field, ...]:
        if self.level >= MAX_LEVELS:
            return ()
        fields = shape(rule.unused)
        if len(fields) < 2 or len(self.groups) < MAX_SHAPES:
            return fields
        plain = {rule.slots[field.path]: field for field in rule.unused if field.plain}
        wanted = tuple(rule.slots[field.path] for field in fields)
        known = [slots for slots, _, _ in self.groups if all(slot in plain for slot in slots)]
        if wanted in known:
            return fields
        best = max((slots for slots in known if _count(plain, slots) <= 16), key=len, default=wanted[:1])
        chosen = tuple(plain[slot] for slot in best)
        self._shapes[(rule.key, id(rule.branch))] = chosen
        return chosen

    def _add_exact(self, rule: Rule, fields: tuple[Field, ...]) -> None:
        slots = tuple(rule.slots[field.path] for field in fields)
        buckets = next((buckets for known, _, buckets in self.groups if known == slots), None)
        fresh = buckets is None
        if buckets is None:
            buckets = {}
        inner = rule.without(fields, known=True)
        for key in tuples_of(fields):
            buckets[key] = added(buckets.get(key), inner, self.level + 1)
        if fresh:
            self._regroup((*self.groups, (slots, itemgetter(*slots), buckets)))

    def _remove_exact(self, rule: Rule, fields: tuple[Field, ...]) -> None:
        slots = tuple(rule.slots[field.path] for field in fields)
        buckets = next(buckets for known, _, buckets in self.groups if known == slots)
        inner = rule.without(fields, known=True)
        for key in tuples_of(fields):
            left = removed(buckets[key], inner)
            if left is None:
                del buckets[key]
            else:
                buckets[key] = left
        if not buckets:
            self._regroup(tuple(group for group in self.groups if group[0] != slots))

    def _table(self, slot: int, place: str) -> Table:
        if place == "absent":
            found = next((table for known, table in self.lacking if known == slot), None)
        else:
            found = next((table for known, name, table in self.tables if known == slot and name == place), None)
        if found is None:
            found = TABLES[place]()
            if place == "absent":
                self.lacking = (*self.lacking, (slot, found))
                self.more = True
            else:
                self.tables = (*self.tables, (slot, place, found))
        return found

    def _put(self, slot: int, place: str, key: object, inner: Rule) -> None:
        table = self._table(slot, place)
        table.put(key, added(table.get(key), inner, self.level + 1))

    def _take(self, slot: int, place: str, key: object, inner: Rule) -> None:
        table = self._table(slot, place)
        bucket = table.get(key)
        left = None if bucket is None else removed(bucket, inner)
        if left is not None:
            table.put(key, left)
            return
        if bucket is not None:
            table.drop(key)
        if not table.size():
            self.tables = tuple(row for row in self.tables if row[2] is not table)
            self.lacking = tuple(row for row in self.lacking if row[1] is not table)

    def _rarest(self, slot: int, wildcard: op.Wildcard, slots: Slots) -> Place:
        """The place of a wildcard where fewest rules lie; of pieces the one that fewest wildcards contain."""
        known = {name: table for at, name, table in self.tables if at == slot}

        def load(place: Place) -> tuple[int, int]:
            name, key = place
            if name == "gram":
                return 1, slots.seen(str(key))
            return _weight(known[name].get(key)) // FEW if name in known else 0, 0

        found = wildcard_places(wildcard)
        best = min(found, key=load)
        for name, key in found:
            if name == "gram":
                slots.see(str(key))
        return best


def _weight(bucket: Bucket | None) -> int:
    if isinstance(bucket, Node):
        return 1 << 20
    return 0 if bucket is None else len(bucket.members) if isinstance(bucket, Few) else 1


def _count(plain: dict[int, Field], slots: tuple[int, ...]) -> int:
    count = 1
    for slot in slots:
        count *= len(plain[slot].exact)
    return count


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
