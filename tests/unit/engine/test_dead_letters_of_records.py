"""What stage one cannot read is a dead letter of the namespace that reads it, or its people would never see it."""

from __future__ import annotations

import json

from penstock.events.bus import EVENTS, Record
from penstock.services.engine.compiled import Compiled
from penstock.services.engine.stage_one import match
from penstock.triggers import Matcher


def test_a_record_that_is_no_event_is_a_dead_letter_of_its_namespace_with_its_origin() -> None:
    outcome = match(Compiled(1, Matcher(), {}), "acme", [Record(EVENTS, 2, 7, 1_000_000, b"{", b"k")])
    (letter,) = [json.loads(each.value) for each in outcome.refused]
    assert letter["namespace"] == "acme"
    assert letter["origin"] == {"topic": EVENTS, "partition": 2, "offset": 7}
    assert "InvalidEventError" in letter["reason"]
