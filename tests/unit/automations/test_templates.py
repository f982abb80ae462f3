"""Templates: what they give, what they are kept from, and how they say what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.automations import RenderError, TemplateError, render_json
from penstock.automations.compiling import compile_template, compile_whole
from penstock.automations.sandbox import MAX_OUTPUT, MAX_SOURCE
from penstock.automations.scopes import SECRETS_SCOPE, action_scope
from penstock.automations.templates import Secrets, Template

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

SCOPE = action_scope({"limit", "plant"}, {"ask"})
EVENT = {
    "type": "sensor.temperature",
    "subject": "truck/7",
    "data": {"items": [1, 2.5, "x"], "n": 3, "inner": {"a": None, "count": 4}, "yes": True, "title": "Linz"},
}
VARIABLES: dict[str, Any] = {
    "event": EVENT,
    "events": [EVENT, EVENT],
    "trigger": {"key": ["a", 1], "value": None},
    "vars": {"limit": 8, "plant": "Linz"},
    "steps": {"ask": {"by": "user/ann"}},
    "secrets": Secrets("n0nce"),
}


def value(source: str) -> Any:
    return compile_template(source, SCOPE).value(VARIABLES)


def text(source: str) -> str:
    return compile_template(source, SCOPE).text(VARIABLES)


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("{{ event.data.n }}", 3),
        ("{{ event.data.n * 2.5 }}", 7.5),
        ("{{ event.data.items }}", [1, 2.5, "x"]),
        ("{{ event.data.inner }}", {"a": None, "count": 4}),
        ("{{ event.data.yes }}", True),
        ("{{ event.data.inner.a }}", None),
        ("{{ trigger.key }}", ["a", 1]),
        ("{{ events | length }}", 2),
        ("{{ event.data.n > vars.limit }}", False),
        ("{{ 'high' if event.data.n > 2 else 'low' }}", "high"),
        ("{{ {'a': event.data.n, 'b': [1, 2]} }}", {"a": 3, "b": [1, 2]}),
        ("{{ event.data.items | map('string') | join('-') }}", "1-2.5-x"),
        ("{{ event.data.nothing | default(0) }}", 0),
        ("{{ event.data.n }} °C", "3 °C"),
        ("plain text, {braces} and %", "plain text, {braces} and %"),
        ("{% for each in event.data['items'] %}{{ each }};{% endfor %}", "1;2.5;x;"),
        ("{% if event.data.yes %}on{% else %}off{% endif %}", "on"),
        ("{{ event.subject ~ '/' ~ (vars.plant ~ '!') }}", "truck/7/Linz!"),
        ("{{ event.subject.split('/')[1] }}", "7"),
        ("{{ 'x' * 3 }}", "xxx"),
        ("{{ 2 ** 10 }}", 1024),
        ("{{ [1, 2.5] | sum }}", 3.5),
        ("{{ events | sum(attribute='data.n') }}", 6),
        ("{% for a in 'xy' %}{% for b in [1, 2] %}{{ a ~ b ~ (a ~ '.') }}{% endfor %}{% endfor %}", "x1x.x2x.y1y.y2y."),
    ],
)
def test_a_single_expression_keeps_its_json_kind_and_the_rest_is_text(source: str, kept: Any) -> None:
    found = value(source)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("{{ event.data.inner.a }}", ""),
        ("{{ event.data.yes }}", "true"),
        ("{{ event.data.inner }}", '{"a":null,"count":4}'),
    ],
)
def test_as_text_a_value_reads_as_json_and_null_is_empty(source: str, kept: str) -> None:
    assert text(source) == kept


@pytest.mark.parametrize("field", ["items", "inner.count", "title"])
def test_a_field_of_an_event_wins_over_a_method_of_that_name(field: str) -> None:
    assert not callable(value("{{ event.data." + field + " }}"))


def test_a_tree_is_rendered_leaf_by_leaf() -> None:
    tree = {
        "a": compile_template("{{ event.data.n }}", SCOPE),
        "b": [compile_template("x{{ event.subject }}", SCOPE), 5, None],
    }
    assert render_json(tree, VARIABLES) == {"a": 3, "b": ["xtruck/7", 5, None]}


@pytest.mark.parametrize(
    ("source", "variable"),
    [
        ("{{ event.data.missing }}", "event.data.missing"),
        ("at {{ event.data.missing }}", "event.data.missing"),
        ("{{ event.data.missing.deeper }}", "event.data.missing"),
        ("{{ [event.data.missing] }}", "event.data.missing"),
        ("{{ event.data.missing + 1 }}", "event.data.missing"),
        ("{% for x in event.data.missing %}{% endfor %}", "event.data.missing"),
        ("{{ steps.ask.comment }}", "steps.ask.comment"),
    ],
)
def test_what_an_event_lacks_is_an_error_that_names_it(source: str, variable: str) -> None:
    with pytest.raises(RenderError) as caught:
        text(source)
    assert (caught.value.variable, caught.value.template) == (variable, source)
    assert str(caught.value) == f"template {source!r} cannot be rendered: `{variable}` is missing in this event"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10 ** 8 }}",
        "{{ [0] * 10 ** 8 }}",
        "{{ 10 ** 8 * 'a' }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ range(10 ** 9) | list }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9000) %}{{ event.data.title * 100 }}{% endfor %}",
        "{{ ('a' * 200000) ~ ('a' * 200000) }}",
        "{{ ('a' * 200000) + ('a' * 200000) }}",
        "{{ ('a' * 10000) | replace('a', 'b' * 1000) }}",
        "{{ range(9000) | join('a' * 1000) }}",
        "{{ 1.5 | round(10 ** 9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ event.subject.format(1) }}",
        "{{ event.subject.join(event.data['items']) }}",
        "{{ event.data.n / 0 }}",
        "{{ event.data.n + 'x' }}",
        "{{ 1e308 * 10 }}",
        "{{ [[1], [2]] | sum }}",
        "{{ event.data.get }}",
        "{{ {1: 2} }}",
    ],
)
def test_what_would_run_away_or_fail_is_a_render_error(source: str) -> None:
    with pytest.raises(RenderError):
        compile_template(source, SCOPE).text(VARIABLES)


@pytest.mark.parametrize(
    "source",
    [
        "{{ event.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ event.subject.__init__.__globals__ }}",
        "{{ events.__class__ }}",
        "{{ event['__class__'] }}",
        "{{ event.data | attr('__class__') }}",
        "{{ range.__self__ }}",
        "{{ (event.data.n).__class__ }}",
        "{{ event.data['items'].append(1) }}",
        "{{ event.data.update({}) }}",
    ],
)
def test_python_s_insides_cannot_be_reached(source: str) -> None:
    with pytest.raises((TemplateError, RenderError)):
        text(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% set x = 1 %}{{ x }}",
        "{% include 'x' %}",
        "{% macro m() %}{% endmacro %}",
        "{% import 'x' as y %}",
        "{% with a = 1 %}{{ a }}{% endwith %}",
        "{% filter upper %}x{% endfilter %}",
        "{% block b %}{% endblock %}",
        "{{ x() }}",
        "{{ namespace() }}",
        "{{ lipsum() }}",
        "{{ self }}",
        "{{ 'a' | center(100) }}",
        "{{ event is callable }}",
        "{{ " + "(" * 400 + "1" + ")" * 400 + " }}",
        "{{ " + "x" * MAX_SOURCE + " }}",
        "{{ " + "1+" * 8000 + "1 }}",
        "{{ " + "not " * 4000 + "1 }}",
    ],
)
def test_what_a_template_may_not_do_is_refused_at_load(source: str) -> None:
    with pytest.raises(TemplateError):
        compile_template(source, SCOPE)


@pytest.mark.parametrize(
    ("source", "reason", "hint"),
    [
        ("{{ event.tpye }}", "an event has no `tpye`", "did you mean `type`?"),
        ("{{ event.Celsius }}", "an event has no `Celsius`", "content of an event stands under `data`: `data.Celsius`"),
        (
            "{{ events.subject }}",
            "`events` is a list and has no `subject`",
            "write e.g. `events[0].subject`, or use `event`",
        ),
        ("{{ vars.limt }}", "`vars` has no `limt`", "did you mean `limit`?"),
        ("{{ vars['limt'] }}", "`vars` has no `limt`", "did you mean `limit`?"),
        ("{{ steps.aks.by }}", "no earlier step is named `aks`", "did you mean `ask`?"),
        ("{{ body.id }}", "there is no variable `body` here", "known: event, events, secrets, steps, trigger, vars"),
        ("{{ event.subject is foo }}", "unknown test `foo`", ""),
        ("{{ secrets }}", "`secrets` as a whole cannot be used", "name one: `{{ secrets.NAME }}`"),
        ("{{ secrets[event.subject] }}", "a secret is named by letters, digits and _", "write `{{ secrets.NAME }}`"),
        ("{% set x = 1 %}", "`{% set %}` cannot be used here; only `if` and `for` can", ""),
    ],
)
def test_a_name_that_cannot_exist_is_refused_with_what_was_probably_meant(source: str, reason: str, hint: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_template(source, SCOPE)
    assert (caught.value.reason, caught.value.hint) == (reason, hint)


@pytest.mark.parametrize(
    "source", ["{{ event.plant }}", "{{ event['tpye'] | default(1) }}", "{{ event.tracestate | default(1) }}"]
)
def test_an_extension_attribute_may_have_a_name_of_its_own(source: str) -> None:
    compile_template(source, SCOPE)


def test_a_variable_of_a_loop_may_hide_nothing_it_should_not() -> None:
    assert value("{% for event in events %}{{ event.data.n }}{% endfor %}") == "33"


def test_a_secret_renders_to_a_placeholder_with_the_nonce() -> None:
    assert value("{{ secrets.API }}") == "⟦secret:API:n0nce⟧"
    assert value("Bearer {{ secrets.API }}") == "Bearer ⟦secret:API:n0nce⟧"
    assert compile_template("{{ secrets.A }}{{ secrets['B'] }}", SCOPE).secrets == {"A", "B"}


def test_settings_give_their_secrets_in_clear_to_whoever_delivers() -> None:
    template = compile_template("xoxb-{{ secrets.SLACK }}", SECRETS_SCOPE)
    assert template.clear({"SLACK": "s3cret"}.__getitem__) == "xoxb-s3cret"


def test_a_rendering_shares_nothing_with_the_event() -> None:
    found = value("{{ event.data.items }}")
    found.append("changed")
    assert value("{{ event.data.items }}") == [1, 2.5, "x"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@PATIENT
@given(json_values)
def test_any_json_passes_through_a_single_expression_unchanged(data: Any) -> None:
    assert compile_template("{{ event.data }}", SCOPE).value({**VARIABLES, "event": {"data": data}}) == data


@PATIENT
@given(st.text(alphabet="{}%#-| .()[]'\"~*+eventdatasecrets0123456789for in rangeendif", max_size=60))
def test_no_source_crashes_or_escapes_its_bounds(source: str) -> None:
    try:
        found = compile_template(source, SCOPE).text(VARIABLES)
    except (TemplateError, RenderError):
        return
    assert len(found) <= MAX_OUTPUT


TEXTS = st.sampled_from(["", "a", " ", "\n", "{", "}", "}}", "{ {", "é", "'", '"', "\r\n", "-", "{%", "#}", "%}"])
EXPRESSIONS = (
    "{{ event.subject }};{{event.data.n}};{{ event.data }};{{ event.data.none }};{{ event.data.missing }};{{ 5 }}"
    ";{{ 'a' }};{{ event.data.n > 3 }};{{ event.data.list[0] }};{{ secrets.A }};{{- event.id }};{{ event.id -}}"
    ';{{+ event.id }};{{ "}}" }};{{ {1: 2} }};{{ }};{{;{{ event.data.n ~ event.id }};{{\nevent.id\n}};{{ evnt.id }}'
    ";{{ event.data.list }};{% if event.id %};{% endif %};{# c #};{{ events.id }};{{ vars.x }};{{ event.id || 1 }}"
    ";{{ event.data.n | round(1) }};{{ events | length }};{{ secrets.A | e }}"
)
PIECES = st.one_of(TEXTS, st.sampled_from(EXPRESSIONS.split(";")))


@settings(deadline=None, max_examples=500)
@given(st.lists(PIECES, max_size=6).map("".join).filter(lambda source: "{{" in source))
def test_a_text_made_of_known_expressions_says_what_it_says_as_a_whole(source: str) -> None:
    data = {"n": 3.25, "none": None, "list": ["a", {"b": 1}]}
    event = {"id": "1", "subject": "x\ny", "data": data}
    variables = {"event": event, "events": [event], "secrets": Secrets("n")}

    def said(compile_it: Callable[[], Template]) -> tuple[str, object]:
        try:
            template = compile_it()
            return template.text(variables), template.secrets
        except (TemplateError, RenderError) as error:
            return str(error), None

    scope = action_scope((), ())
    assert said(lambda: compile_template(source, scope)) == said(lambda: compile_whole(source, scope))
