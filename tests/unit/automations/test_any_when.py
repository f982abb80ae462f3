"""Whatever stands under `when` and beside it: the loader tells what is wrong, or makes a rule of it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.automations import load_texts, pipeline
from penstock.triggers.simulation import simulate

KEYS = [
    "event", "where", "per", "count", "within", "absent", "after", "sequence", "all", "any", "at_least", "of", "metric",
    "changed", "from", "to", "for", "schedule", "order", "lateness", "late", "grace", "if", "name",
]  # fmt: skip
STAGES = ["if", "dedupe", "debounce", "cooldown", "limit", "storm", "mode", "enabled", "shadow", "on_resolve", "tests"]
WORDS = ["a", "data.v", "subject", "5m", "0s", "-1", "event_time", "accept", "*", "", "x..y", "{{ event }}", ">", "avg"]
METRIC = {"value": "data.v", "over": "1m", "stat": "avg", "op": ">", "threshold": 5}
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [*WORDS, 0, 1, 3, -5, 2.5, True, None, [], {}, METRIC, {"every": "5m"}, {"cron": "* * * * *"}, {"event": "a"}]
)
WHENS: st.SearchStrategy[Any] = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=4),
    lambda inner: st.dictionaries(
        st.sampled_from(KEYS), st.one_of(VALUES, inner, st.lists(inner, min_size=1, max_size=3)), max_size=4
    ),
    max_leaves=5,
)
BESIDE = st.dictionaries(
    st.sampled_from(STAGES),
    st.one_of(VALUES, st.sampled_from(["10/1h", "queued", "event.data.v > 1", {"by": "subject", "for": "1m"}])),
    max_size=3,
)
EVENTS = [
    {"id": str(n), "source": "/s", "type": "a", "time": f"2026-03-01T10:00:{n:02}Z", "data": {"v": n}} for n in range(5)
]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(WHENS, BESIDE)
def test_a_rule_file_is_told_or_taken_and_never_crashes(when: Any, beside: dict[str, Any]) -> None:
    rule = {"name": "r", "when": when, "then": [{"emit": {"type": "b"}}], **beside}
    found = load_texts({"r.yaml": json.dumps({"automations": [rule]})})
    assert bool(found.rules) != bool(found.errors)
    assert all(problem.line == 1 and problem.message for problem in found.problems)
    for each in found.rules:
        assert pipeline(each)
        list(simulate([each.rule], EVENTS))
