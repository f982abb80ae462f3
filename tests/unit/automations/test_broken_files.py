"""Whatever is done to a rule file, loading it gives rules or problems; it never crashes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.automations import load_texts
from penstock.automations.documents import read

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
WHOLE = """\
namespace: plant
vars: {limit: 8}
defaults: {tags: [a], retry: {attempts: 2}}
automations:
  - name: cold-chain
    when:
      event: sensor.temperature
      where: {subject: [{prefix: truck/}], data.celsius: [{numeric: [">", 8]}], $or: [{source: a}, {id: b}]}
      per: [subject, data.line]
      count: 3
      within: 5m
    then:
      - {name: ask, approve: {ask: "Reroute {{ event.subject }}?", approvers: [group/dispatch], needs: 1, timeout: 30m}}
      - {run: reroute, with: {truck: "{{ event.subject }}", nested: {deep: ["{{ vars.limit }}"]}}, retry: {delay: 2s}}
      - {notify: ops, text: "{{ steps.ask.by }} {{ secrets.X }}"}
      - {emit: {type: truck.warm, data: {c: "{{ event.data.celsius }}"}}}
    on_error: [{notify: ops, text: failed}]
    tests: [{name: t, given: [{type: a, at: 0s}], expect: [{fires: cold-chain, at: 120s, key: k}]}]
users: [{name: ann, phone: "+431"}]
groups: [{name: dispatch, members: [user/ann]}]
channels: [{name: ops, slack: {channel: "#ops", token: "{{ secrets.SLACK }}"}, rate: 1/1s}]
webhooks: [{name: w, verify: {preset: hmac, secret: "{{ secrets.W }}"}, event: {type: t, data: {a: ["{{ body.id }}"]}}}]
sensors: [{name: m, driver: mqtt, url: "mqtt://x", topics: [a], event: {type: t, subject: "{{ topic }}"}}]
schedules: [{name: n, cron: "0 3 * * *", timezone: UTC}]
limits: [{name: erp, rate: 10/1s}]
"""
FLOWS: dict[str, dict[str, Any]] = {
    "reroute": {"properties": {"truck": {"type": "string"}}, "additionalProperties": True}
}
LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1.5, "", "x", "{{ x }}", "5m", [], {}, [None], {"a": None}, [[]], {"": {}}, "«run»"]
)


def test_the_whole_file_is_fine() -> None:
    assert load_texts({"r.yaml": WHOLE}, flows=FLOWS).problems == ()


@settings(PATIENT, max_examples=150)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 12), st.text(alphabet="ab1:-{}[],'\"|>&*! \n$%.«", max_size=6))
def test_a_file_with_some_characters_changed_is_read_or_refused_with_a_place(at: int, length: int, new: str) -> None:
    text = WHOLE[:at] + new + WHOLE[at + length :]
    lines = text.count("\n") + 2
    for problem in load_texts({"r.yaml": text}, flows=FLOWS).problems:
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert problem.message


@settings(PATIENT, max_examples=150)
@given(st.data())
def test_a_file_with_any_value_replaced_is_read_or_refused(data: st.DataObject) -> None:
    document, _ = read("r.yaml", WHOLE)
    assert document is not None
    path = data.draw(st.sampled_from(sorted(filter(None, document.paths()), key=str)))
    parent = document.value
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = data.draw(LEAVES)
    load_texts({"r.yaml": json.dumps(document.value, indent=1)}, flows=FLOWS)


def test_a_faulty_condition_is_told_although_the_rule_is_refused_for_another_reason() -> None:
    rule = "when: {event: x, within: 5 minutes}\n    if: event.data.x >> 3\n    then: [{emit: {type: z}}]\n"
    text = f"automations:\n  - name: a\n    {rule}"
    lines = {problem.line for problem in load_texts({"a.yaml": text}).problems if problem.severity == "error"}
    assert lines == {3, 4}
