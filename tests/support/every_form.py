"""One rule of every form of the language, and seeded streams that feed them all: disorder, late ones, repeats, ahead.

The rules of `OWN` have keys whose events all come through one partition of the bus, since that goes by the subject:
what they decide is a function of the stream as it was made. Those of `ACROSS` join subjects.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from penstock.events.instants import Instant, format_instant
from penstock.triggers.simulation import instant_of

SECOND = 1_000_000
MINUTE = 60 * SECOND
START = instant_of("2026-01-05T06:00:00Z")
OWN = "own-"
ACROSS = "across-"
STATELESS = "own-plain"  # stage one decides it, without a word on the match topic

RULES = """
vars: {warm: 20}
defaults: {shadow: true}
automations:
  - name: own-count
    when: {event: [login.failed, login.denied], per: subject, count: 3, within: 4m}
    then: &act [{emit: {type: seen}}]
  - name: own-plain
    when: {event: login.*, where: {data: {code: [{numeric: [">", 7]}]}}, per: subject}
    if: event.data.code * 1.5 < 14
    then: *act
  - name: own-unanswered
    when: {absent: {event: order.paid}, after: {event: order.placed}, within: 5m, per: data.order, grace: 20s}
    then: *act
  - name: own-silent
    when: {absent: {event: device.alive}, within: 3m, per: subject, lateness: 1m}
    then: *act
  - name: own-sequence
    when:
      sequence: [{event: login.failed, count: 2, within: 3m}, {event: login.succeeded}, {event: order.placed}]
      within: 10m
      per: subject
    then: *act
  - name: own-all
    when: {all: [{event: smoke.seen}, {event: heat.felt}], within: 4m, per: subject}
    then: *act
  - name: own-any
    when:
      any: [{event: gas.smelt, count: 2, within: 5m}, {event: heat.felt, where: {data: {code: [9]}}}]
      per: subject
    then: *act
  - name: own-at-least
    when: {at_least: 2, of: [{event: smoke.seen}, {event: heat.felt}, {event: gas.smelt}], within: 1m, per: subject}
    then: *act
  - name: own-metric
    when:
      event: device.measured
      metric: {value: data.celsius, over: 5m, stat: avg, op: ">", threshold: 20, for: 1m, clear: 18}
      per: subject
    then: *act
    on_resolve: *act
  - name: own-rate
    when:
      event: device.measured
      metric: {value: data.celsius, over: 2m, stat: count, op: ">=", threshold: 3}
      per: subject
    then: *act
  - name: own-changed
    when: {event: device.moved, changed: data.zone, to: depot, for: 90s, per: subject}
    then: *act
  - name: own-moved
    when: {event: device.moved, changed: data.zone, from: depot, per: [subject, data.code]}
    then: *act
  - name: own-schedule
    when: {schedule: {every: 7m}}
    then: *act
  - name: own-nested
    when:
      sequence:
        - {all: [{event: smoke.seen}, {any: [{event: gas.smelt}, {event: login.denied}]}], within: 8m}
        - {absent: {event: device.alive}, after: {event: heat.felt}, within: 1m}
      within: 20m
      per: subject
    then: *act
  - name: own-accepting
    when: {event: device.measured, per: subject, count: 4, within: 10m, lateness: 10s, late: accept}
    then: *act
  - name: own-ordered
    when:
      sequence: [{event: login.failed}, {event: login.succeeded}]
      within: 3m
      per: subject
      order: event_time
    then: *act
  - name: own-ordered-silence
    when: {absent: {event: order.paid}, after: {event: order.placed}, within: 2m, per: subject, order: event_time}
    cooldown: 3m
    then: *act
  - name: own-deduped
    when: {event: device.moved, per: subject, count: 2, within: 10m}
    dedupe: {by: [subject, data.code], for: 5m}
    then: *act
  - name: own-debounced
    when: {event: login.*, per: subject, count: 2, within: 2m}
    debounce: {quiet: 40s, max: 2m, keep: all}
    limit: 3/30m
    then: *act
  - name: own-turns
    when: {event: order.paid, per: subject}
    if: event.data.code > 1
    mode: queued
    cooldown: 1m
    limit: 4/1h
    then: *act
  - name: own-off
    enabled: false
    when: {event: login.failed, per: subject, count: 2, within: 5m}
    then: *act
  - name: across-zone
    when: {event: device.*, per: data.zone, count: 12, within: 3m}
    then: *act
  - name: across-deduped
    when: {event: device.moved, per: data.zone, count: 2, within: 10m, order: event_time}
    dedupe: {by: data.code, for: 10s}
    then: *act
  - name: across-hot
    when:
      event: device.measured
      metric: {value: data.celsius, over: 2m, stat: p95, op: ">", threshold: 32, for: 20s, clear: 30}
      per: data.zone
    then: *act
  - name: across-ordered
    when: {event: [smoke.seen, gas.smelt], per: data.zone, count: 3, within: 5m, order: event_time, lateness: 45s}
    then: *act
  - name: across-watch
    when: {absent: {event: heat.felt, where: {data: {code: [3]}}}, within: 2m}
    then: *act
  - name: across-sequence
    when: {sequence: [{event: smoke.seen}, {event: gas.smelt}, {event: order.placed}], within: 2m}
    debounce: 15s
    then: *act
"""

_ZONES = ("depot", "yard", "road", None, "")
_KINDS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "login.failed": lambda chance: {"code": chance.randrange(10)},
    "login.denied": lambda chance: {"code": chance.randrange(10)},
    "login.succeeded": lambda chance: {"code": chance.randrange(10)},
    "order.placed": lambda chance: {"code": chance.randrange(10)},
    "order.paid": lambda chance: {"code": chance.randrange(10)},
    "device.alive": lambda chance: {"zone": chance.choice(_ZONES)},
    "device.measured": lambda chance: {"zone": chance.choice(_ZONES), "celsius": chance.choice([*range(5, 36), "?"])},
    "device.moved": lambda chance: {"zone": chance.choice(_ZONES), "code": chance.randrange(3)},
    "smoke.seen": lambda chance: {"zone": chance.choice(_ZONES)},
    "heat.felt": lambda chance: {"zone": chance.choice(_ZONES), "code": chance.randrange(10)},
    "gas.smelt": lambda chance: {"zone": chance.choice(_ZONES)},
}
_WEIGHTS = (3, 1, 2, 2, 2, 5, 5, 3, 2, 2, 2)
_SUBJECTS = 24
_GAP = 2.0  # seconds between arrivals, on average


def stream(count: int, seed: int, start: Instant = START) -> list[dict[str, Any]]:
    """Events in order of arrival, which `recordedtime` says, in whole milliseconds; repeats are among the count."""
    found: list[dict[str, Any]] = []
    made = _made(seed, start)
    while len(found) < count:
        found += next(made)
    return sorted(found[:count], key=arrival)


def arrival(event: dict[str, Any]) -> Instant:
    """When it arrived."""
    return instant_of(event["recordedtime"])


def _made(seed: int, start: Instant) -> Iterator[list[dict[str, Any]]]:
    """One after the other; where it is delivered twice, both."""
    chance = random.Random(seed)
    now, number = start, 0
    while True:
        now += round(chance.expovariate(1 / _GAP) * 1_000) * 1_000
        number += 1
        (type_,) = chance.choices(list(_KINDS), _WEIGHTS)
        subject = f"s{chance.randrange(_SUBJECTS)}"
        data = _KINDS[type_](chance)
        if type_.startswith("order."):
            data["order"] = f"{subject}-{now // (20 * MINUTE)}-{chance.randrange(2)}"
        event = {
            "specversion": "1.0",
            "id": f"e{number}",
            "source": f"/every-form/{chance.randrange(3)}",
            "type": type_,
            "subject": subject,
            "time": format_instant(now - _delay(chance)),
            "recordedtime": format_instant(now),
            "data": data,
        }
        again = now + chance.randrange(90_000) * 1_000
        yield [event, {**event, "recordedtime": format_instant(again)}] if chance.random() < 0.06 else [event]


def _delay(chance: random.Random) -> int:
    """Microseconds from an event's time to its arrival: mostly short, some late, some ahead of the clock."""
    kind = chance.random()
    if kind < 0.80:
        return chance.randrange(4_000) * 1_000
    if kind < 0.92:
        return chance.randrange(30_000) * 1_000
    if kind < 0.97:
        return chance.randrange(30_001, 120_000) * 1_000
    return -chance.randrange(1, 300_000) * 1_000
