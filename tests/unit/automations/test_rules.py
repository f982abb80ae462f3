"""What a rule means once it is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.automations import Automation, RetryPolicy, decision_id, export_schema, load_texts
from penstock.automations.actions import NotifyStep
from penstock.automations.resources import Channel, Limit, MqttSensor, Webhook
from penstock.triggers.forms import Count, leaves

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

SECOND = 1_000_000
CHANNELS = 'channels: [{name: ops, slack: {channel: "#ops", token: "{{ secrets.SLACK }}"}}]\n'


def rule(when: str, more: str = "", top: str = "", then: str = "[{emit: {type: a.b}}]") -> Automation:
    text = f"{top}automations:\n  - name: r\n    when: {when}\n    then: {then}\n{more}{CHANNELS}"
    (found,) = load_texts({"r.yaml": text}).require().rules
    return found


def counted(automation: Automation) -> Count:
    assert isinstance(automation.rule.trigger, Count)
    return automation.rule.trigger


def matches(when: str, **event: Any) -> bool:
    return leaves(rule(when).rule)[0].pattern.matches({"id": "1", "source": "/t", "type": "a", **event})


def test_a_trigger_has_its_window_its_key_and_its_lateness() -> None:
    found = rule("{event: [a, b.*], per: [subject, data.m], count: 3, within: 5m, lateness: 10s, late: accept}")
    assert found.event_types == ("a", "b.*")
    assert leaves(found.rule)[0].per == ("subject", "data.m")
    assert (counted(found).count, counted(found).within) == (3, 300 * SECOND)
    assert (found.rule.lateness, found.rule.accept_late, found.rule.stateless) == (10 * SECOND, True, False)


def test_what_is_not_said_has_its_default() -> None:
    found = rule("{event: a}")
    assert (leaves(found.rule)[0].per, counted(found).count, counted(found).within) == ((), 1, None)
    assert (found.rule.lateness, found.rule.accept_late) == (30 * SECOND, False)
    assert (found.enabled, found.shadow, found.tags, found.on_error, found.namespace) == (
        True,
        False,
        (),
        (),
        "default",
    )


@pytest.mark.parametrize(
    ("event", "type_", "meant"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.bc", False),
        ("a.*", "a.b.c", True),
        ("a.*", "b.a.", False),
        ("'*.b'", "x.b", True),
        ("'*'", "anything", True),
        ("a**b", "a--b", True),
        ("'**'", "x", True),
        ("'a\\*'", "a\\x", True),
        ("[x, y.*]", "y.z", True),
    ],
)
def test_a_star_in_a_type_is_any_run_of_characters(event: str, type_: str, meant: bool) -> None:
    assert matches(f"{{event: {event}}}", type=type_) is meant


@pytest.mark.parametrize(
    ("where", "data", "meant"),
    [
        ("{data: {x: 5}}", {"x": 5}, True),
        ("{data.x: 5}", {"x": 5}, True),
        ("{data.x.y: [a, b]}", {"x": {"y": "b"}}, True),
        ("{data.x: 5, data.y: 6}", {"x": 5, "y": 6}, True),
        ("{data.x: 5, data.y: 6}", {"x": 5}, False),
        ("{data.x: 5, data: {y: 6}}", {"x": 5, "y": 6}, True),
        ("{data.x: 5, data: {y: 6}}", {"x": 5, "y": 7}, False),
        ("{data: {x: [null]}}", {"x": None}, True),
        ("{data.x: [{numeric: ['>', 8]}]}", {"x": 9}, True),
        ("{data.x: [{exists: false}]}", {}, True),
        ("{$or: [{data.x: 1}, {data: {y: 2}}]}", {"y": 2}, True),
        ("{$or: [{data.x: 1}, {data: {y: 2}}]}", {"y": 3}, False),
        ("{data: {$or: [{x: 1}, {y.z: 2}]}}", {"y": {"z": 2}}, True),
        ("{data: {on: no}}", {"on": "no"}, True),
        ("{data: {exists: [yes]}}", {"exists": "yes"}, True),
    ],
)
def test_where_is_the_pattern_language_with_sugar(where: str, data: Any, meant: bool) -> None:
    assert matches(f"{{event: a, where: {where}}}", data=data) is meant


def test_vars_and_defaults_serve_all_rules_of_their_file() -> None:
    top = "vars: {limit: 8}\ndefaults: {tags: [plant], shadow: true, lateness: 1m, retry: {attempts: 2},"
    top += " on_error: [{emit: {type: x.failed}}]}\n"
    found = rule("{event: a}", top=top, then='[{notify: ops, text: "{{ vars.limit }}"}]')
    assert (found.tags, found.shadow, found.rule.lateness, found.vars) == (
        ("plant",),
        True,
        60 * SECOND,
        {"limit": 8},
    )
    (step,) = found.then
    assert isinstance(step, NotifyStep)
    assert (step.retry.attempts, len(found.on_error)) == (2, 1)


def test_a_rule_says_otherwise_than_its_file() -> None:
    top = "defaults: {tags: [plant], shadow: true, lateness: 1m, on_error: [{emit: {type: x.failed}}]}\n"
    found = rule("{event: a, lateness: 30s}", "    shadow: false\n    tags: []\n    on_error: []\n", top)
    assert (found.tags, found.shadow, found.rule.lateness, found.on_error) == ((), False, 30 * SECOND, ())


@pytest.mark.parametrize(
    "same",
    [
        "{event: [a], within: 300s, count: 3, where: {data: {x: [1]}}} # a comment",
        "{count: 3, where: {data.x: 1}, event: [a, a], within: 5m, lateness: 30s}",
        '{"event": "a", within: 4m60s, count: 3, where: {data: {x: 1.0}}}',
    ],
)
def test_another_way_to_write_a_trigger_keeps_its_digest(same: str) -> None:
    assert rule(same).when_digest == rule("{event: a, count: 3, within: 5m, where: {data: {x: 1}}}").when_digest


@pytest.mark.parametrize(
    "other",
    [
        "{event: b}",
        "{event: [a, b]}",
        "{event: a, per: subject}",
        "{event: a, lateness: 1s}",
        "{event: a, late: accept}",
        "{event: a, count: 2, within: 1s}",
        "{event: a, where: {data: {x: '1'}}}",
    ],
)
def test_another_trigger_has_another_digest(other: str) -> None:
    assert rule(other).when_digest != rule("{event: a}").when_digest


def test_an_edit_beside_when_keeps_the_digest() -> None:
    assert (
        rule("{event: a}", "    description: new\n", then="[{emit: {type: c.d}}]").when_digest
        == rule("{event: a}").when_digest
    )


def test_pauses_grow_up_to_their_limit() -> None:
    policy = RetryPolicy(9, SECOND, 2.0, 5 * SECOND)
    assert [policy.pause(attempt) // SECOND for attempt in (1, 2, 3, 4, 99)] == [1, 2, 4, 5, 5]


def test_the_files_of_the_specification_are_taken() -> None:
    text = """
users:  [{name: ann, email: ann@example.com, phone: "+43123456", slack: U024BE7LH}]
groups: [{name: dispatch, members: [user/ann]}]
channels:
  - {name: ops-slack, slack: {channel: "#ops", token: "{{ secrets.SLACK }}"}, rate: 1/1s}
  - {name: on-call, sms: {provider: twilio, account: AC1, token: "{{ secrets.SMS }}", from: "+1555", to: [user/ann]}, base_url: "http://127.0.0.1:9000", rate: unlimited}
webhooks:
  - {name: orders, verify: {preset: hmac, header: x-signature, secret: "{{ secrets.ORDERS }}"}, event: {type: order.placed, id: "{{ body.id }}"}}
  - {name: repo, verify: {preset: github, secret: "{{ secrets.GITHUB }}"}}
sensors:
  - {name: machine, driver: host, every: 1s}
  - {name: plant, driver: mqtt, url: "mqtt://127.0.0.1", topics: ["plant/+/temp"], qos: 1, event: {type: sensor.temperature, subject: "{{ topic }}"}}
schedules: [{name: tick, every: 5s}, {name: nightly, cron: "0 3 * * *", timezone: UTC}]
limits: [{name: erp, rate: 10/1s, burst: 10, on_outage: closed}]
"""  # noqa: E501 -- as the specification writes it
    found = load_texts({"r.yaml": text}).require()
    channel, sensor = found.channels["default", "on-call"], found.sensors["default", "plant"]
    assert isinstance(channel, Channel)
    assert channel.sms is not None
    assert (channel.rate, channel.sms.from_, channel.sms.to) == (None, "+1555", ("user/ann",))
    assert channel.sms.token.clear({"SMS": "t0ken"}.__getitem__) == "t0ken"
    assert isinstance(sensor, MqttSensor)
    assert sensor.event.subject is not None
    assert sensor.event.subject.text({"topic": "plant/1/temp", "body": None}) == "plant/1/temp"
    webhook, limit = found.webhooks["default", "orders"], found.limits["default", "erp"]
    assert isinstance(webhook, Webhook)
    assert webhook.event is not None
    assert webhook.event.id is not None
    assert webhook.event.id.value({"body": {"id": 7}, "headers": {}}) == 7
    assert isinstance(limit, Limit)
    assert str(limit.rate) == "10/1s"


def test_the_schema_tells_every_key_with_its_default() -> None:
    schema = export_schema()
    assert schema["properties"].keys() >= {"automations", "users", "channels", "vars", "defaults", "namespace"}
    assert schema["additionalProperties"] is False
    definitions = schema["$defs"]
    assert definitions["ApproveSpec"]["properties"]["timeout"]["default"] == "1d"
    assert definitions["ApproveSpec"]["properties"]["on_timeout"]["default"] == "reject"
    assert definitions["When"]["properties"]["lateness"]["default"] == "30s"
    assert definitions["Channel"]["properties"]["rate"]["default"] == "1/1s"
    assert "with" in definitions["Run"]["properties"]
    for name, definition in definitions.items():
        for key, described in definition.get("properties", {}).items():
            assert key in definition.get("required", ()) or "default" in described, f"{name}.{key}"


causes = st.tuples(
    st.sampled_from(["default", "plant"]),
    st.sampled_from(["r", "s"]),
    st.sampled_from(["d1", "d2"]),
    st.sampled_from(["fired", "resolved"]),
    st.sampled_from(["null", '"a"', '""', "1", '["a",1]']),
    st.sampled_from([None, 0, 5]),
    st.lists(st.tuples(st.sampled_from(["/a", "/b"]), st.text(max_size=3)), max_size=3).map(
        lambda events: tuple(sorted(events))
    ),
)


@PATIENT
@given(causes, causes)
def test_two_causes_share_no_id_and_the_same_cause_has_the_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (decision_id(*one) == decision_id(*other)) == (one == other)


@PATIENT
@given(causes, st.randoms(use_true_random=False))
def test_the_order_of_the_events_says_nothing_about_the_id(cause: tuple[Any, ...], random: Any) -> None:
    events = cause[-1]
    shuffled = list(events)
    random.shuffle(shuffled)
    assert decision_id(*cause) == decision_id(*(*cause[:-1], shuffled))


def test_the_id_of_a_decision_stays_what_it_is() -> None:
    assert decision_id("default", "r", "d", "fired", '"truck/7"', None, [("/s", "1"), ("/s", "2")]) == decision_id(
        "default", "r", "d", "fired", '"truck/7"', None, [("/s", "2"), ("/s", "1")]
    )
