"""A branch of a pattern on its way into or out of the index."""

from __future__ import annotations

from collections.abc import Hashable

from penstock.triggers.fields import Branch, Field
from penstock.triggers.index_access import Access, is_precise, rank, spread_of
from penstock.triggers.index_buckets import HOLDS, Bucket, Hit, Member, checks, members_of


class Rule:
    """A branch on its way into or out of the index: what is left to know, and in how many places it lies."""

    __slots__ = ("_member", "branch", "checked", "key", "slots", "spread", "unused")

    def __init__(
        self,
        key: Hashable,
        branch: Branch,
        slots: dict[str, int],
        unused: tuple[Field, ...],
        checked: tuple[Field, ...] = (),
        spread: int = 1,
    ) -> None:
        self.key, self.branch, self.slots, self.unused, self.checked = key, branch, slots, unused, checked
        self.spread = spread
        self._member: Member | None = None

    def left(self) -> bool:
        """Whether there is anything left to check."""
        return bool(self.unused or self.checked)

    def found_by(self, access: Access) -> Rule:
        """The same rule once it was found by some of its fields."""
        used = access.used
        unused = () if len(used) == len(self.unused) else tuple([each for each in self.unused if each not in used])
        checked = self.checked if access.known else self.checked + used
        return Rule(self.key, self.branch, self.slots, unused, checked, self.spread * spread_of(used) if unused else 1)

    def member(self) -> Member:
        """The rule among others; one object, wherever it is put."""
        if self._member is None:
            self._member = self._member_for(self._fields())
        return self._member

    def _fields(self) -> tuple[Field, ...]:
        fields = self.unused + self.checked
        return tuple(sorted(fields, key=rank, reverse=True)) if len(fields) > 1 else fields

    def _member_for(self, fields: tuple[Field, ...]) -> Member:
        if not fields:
            return 0, HOLDS, None, (self.key, (), self.branch)
        slot, kind, wanted, *more = checks(fields, self.slots)
        return slot, kind, wanted, (self.key, tuple(more), self.branch)

    def name(self) -> tuple[Hashable, int]:
        return self.key, id(self.branch)

    def is_in(self, bucket: Bucket | None) -> bool:
        """Whether the rule lies in a bucket."""
        if bucket is None:
            return False
        if isinstance(bucket, tuple):
            return any(map(self.is_member, members_of(bucket)))
        if isinstance(bucket, Hit):
            return bucket.branch is self.branch and bucket.key == self.key
        return bucket.has(self)

    def is_member(self, member: Member) -> bool:
        key, _, branch = member[3]
        return branch is self.branch and key == self.key


def reopened(member: Member, slots: dict[str, int], consumed: frozenset[int]) -> Rule:
    """The rule that a member stands for, in a bucket to which the fields at some slots have led."""
    _, kind, _, (key, _, branch) = member
    if kind == HOLDS:
        return Rule(key, branch, slots, ())
    used = [field for field in branch if slots[field.path] in consumed]
    unused = tuple([field for field in branch if slots[field.path] not in consumed])
    checked = tuple([field for field in used if not is_precise(field)])
    return Rule(key, branch, slots, unused, checked, spread_of(used))
