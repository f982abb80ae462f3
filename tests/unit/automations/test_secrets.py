"""Secrets: placeholders while anything is stored, clear values only for whoever delivers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.automations import UnknownSecretError, environment_lookup, mask, reveal, revealed_names
from penstock.automations.secrets import placeholder

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

LOOKUP = environment_lookup(
    {"PENSTOCK_SECRET_API": "s3cret", "PENSTOCK_SECRET_URL": "https://x", "OTHER": "not for rules"}
)


def test_only_placeholders_with_the_firing_s_nonce_are_revealed() -> None:
    mine, foreign = placeholder("API", "n1"), placeholder("API", "n2")
    assert reveal(f"{mine} and {foreign}", "n1", LOOKUP) == f"s3cret and {foreign}"


def test_json_is_revealed_everywhere() -> None:
    found = {"a": [placeholder("API", "n"), 1, None], placeholder("URL", "n"): {"b": "x" + placeholder("URL", "n")}}
    assert reveal(found, "n", LOOKUP) == {"a": ["s3cret", 1, None], "https://x": {"b": "xhttps://x"}}


def test_a_secret_without_a_value_is_an_error_that_says_which_variable_to_set() -> None:
    with pytest.raises(UnknownSecretError, match=r"set the environment variable PENSTOCK_SECRET_OTHER"):
        reveal(placeholder("OTHER", "n"), "n", LOOKUP)


def test_the_names_that_would_be_revealed_are_known_beforehand() -> None:
    found = [placeholder("API", "n"), placeholder("URL", "m")]
    assert revealed_names(found, "n") == {"API"}


def test_a_revealed_value_is_not_looked_into_again() -> None:
    nested = {"PENSTOCK_SECRET_A": placeholder("API", "n"), "PENSTOCK_SECRET_API": "s3cret"}
    assert reveal(placeholder("A", "n"), "n", environment_lookup(nested)) == placeholder("API", "n")


def test_masking_takes_the_longest_value_first() -> None:
    assert mask("token s3cret-long and s3cret", ["s3cret", "s3cret-long", ""]) == "token ••• and •••"


@PATIENT
@given(st.text(), st.lists(st.text(alphabet="abc1", min_size=1), max_size=4))
def test_no_value_survives_masking(text: str, values: list[str]) -> None:
    masked = mask(text + "".join(values), values)
    assert not any(value in masked for value in values)


@PATIENT
@given(st.text())
def test_text_without_placeholders_stays_as_it_is(text: str) -> None:
    assert reveal(text, "a nonce that nobody knows", LOOKUP) == text
