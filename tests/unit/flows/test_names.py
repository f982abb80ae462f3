"""Names from templates, tags, options that are changed."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.journals import Kept

from penstock.flows import FlowDefinitionError, ThreadRunner, flow, get_run_context, task
from penstock.flows.names import LONGEST, fill_in


@task(run_name="sync-{customer}", tags=["crm"])
def sync(customer: str, day: int = 1) -> str:
    return customer


@flow(run_name="night of {day:02d}", tags=["nightly"])
def night(day: int) -> str:
    sync("ann")
    sync("bob")
    return get_run_context().run_name


def test_calls_and_runs_are_shown_by_what_they_were_given() -> None:
    assert night(day=3) == "night of 03"
    assert night.name_run(night.validate_parameters({"day": "4"})) == "night of 04"
    kept = Kept()
    kept.run(night, day=3)
    assert [(call.task, call.label) for call in kept.calls] == [("sync", "sync-ann"), ("sync", "sync-bob")]


def test_a_function_may_make_the_name_and_a_template_that_fails_fails_nothing() -> None:
    made = sync.with_options(run_name=lambda customer, day: f"{customer} on {day}")
    assert made.label(lambda: {"customer": "ann", "day": 2}) == "ann on 2"
    assert fill_in("{a:d}", {"a": "text"}) == "(ValueError in run_name)"
    assert fill_in("{a.missing}", {"a": 1}) == "(AttributeError in run_name)"


@given(st.text(st.characters(exclude_categories=()), max_size=500))
def test_a_name_is_one_line_of_bounded_length(value: str) -> None:
    name = fill_in("sync-{a}", {"a": value})
    assert len(name) <= LONGEST
    assert not {"\n", "\0"} & set(name)
    name.encode()


@pytest.mark.parametrize("template", ["{custmer}", "{0}", "{", "{customer.name} {x[0]}"])
def test_a_template_that_cannot_be_filled_in_is_refused(template: str) -> None:
    with pytest.raises(FlowDefinitionError, match="run_name="):
        sync.with_options(run_name=template)


def test_with_options_changes_what_it_names_and_keeps_the_rest() -> None:
    patient = sync.with_options(retries=3, name="patient")
    assert (patient.name, patient.policy.retries, patient.tags, patient.run_name) == (
        "patient", 3, ("crm",), "sync-{customer}",
    )  # fmt: skip
    assert (sync.name, sync.policy.retries) == ("sync", 0)
    assert patient("ann") == "ann"
    wide = night.with_options(runner=ThreadRunner(2), log_prints=True)
    assert (wide.runner, wide.log_prints, wide.tags, night.runner) == (ThreadRunner(2), True, ("nightly",), None)
    assert wide(1) == "night of 01"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"retrys": 1}, "did you mean 'retries'"),
        ({"zzz": 1}, "there are: cache, cache_for"),
        ({"tags": "crm"}, r'tags=\["crm"\]'),
        ({"tags": [""]}, "is no name"),
    ],
)
def test_wrong_options_are_refused_with_what_was_meant(options: dict[str, Any], told: str) -> None:
    with pytest.raises(FlowDefinitionError, match=told):
        task(**options)(lambda: None)


def test_wrong_options_of_flows_are_refused() -> None:
    def fine() -> None: ...

    for wrong in ({"runner": "threads"}, {"on_changed_code": "guess"}, {"cache": None}, {"limits": [3]}):
        with pytest.raises(FlowDefinitionError):
            flow(**wrong)(fine)


def test_a_step_is_pickled_by_its_name() -> None:
    assert b"night" in pickle.dumps(night)
