"""Rule files for tests, put together from their parts."""

from __future__ import annotations

from typing import Any

from penstock.automations import Problem, RuleSet, load_texts

FLOWS: dict[str, dict[str, Any]] = {
    "reroute": {"properties": {"truck": {"type": "string"}, "stops": {"type": "integer"}}, "required": ["truck"]}
}
PEOPLE = """\
users: [{name: ann}]
groups: [{name: dispatch, members: [user/ann]}]
channels: [{name: ops-slack, slack: {channel: "#ops", token: "{{ secrets.SLACK }}"}}]
"""
GOOD = """\
automations:
  - name: good
    when: {event: order.placed}
    then: [{emit: {type: order.seen}}]
"""


def rules(text: str, **more: str) -> RuleSet:
    return load_texts({"rules.yaml": text, "people.yaml": PEOPLE, **more}, flows=FLOWS)


def only_problem(text: str, **more: str) -> Problem:
    found = rules(text, **more).problems
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


def rule(when: str = "{event: order.placed}", then: str = "[{emit: {type: order.seen}}]", more: str = "") -> str:
    return f"automations:\n  - name: r\n    when: {when}\n    then: {then}\n{more}"
