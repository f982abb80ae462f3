"""A run's secrets: clear on the way in, covered on the way out, and put back for a replay."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.automations.secrets import UnknownSecretError, placeholder
from penstock.services.worker.secrecy import Secrecy

ENVIRONMENT = {"PENSTOCK_SECRET_TOKEN": 'a"b\\c', "PENSTOCK_SECRET_OTHER": "another-one", "HOME": "/home/ann"}
TOKEN = placeholder("TOKEN", "n0nce")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.sampled_from(['a"b\\c', 'x a"b\\c y', "plain"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["k", 'a"b\\c']), inner, max_size=2),
    max_leaves=10,
)


def secrecy(parameters: object, nonce: str = "n0nce") -> Secrecy:
    return Secrecy(msgspec.json.encode(parameters).decode(), nonce, ENVIRONMENT)


def test_a_placeholder_with_the_nonce_of_the_run_is_revealed() -> None:
    assert msgspec.json.decode(secrecy({"word": f"Bearer {TOKEN}"}).parameters) == {"word": 'Bearer a"b\\c'}


def test_a_placeholder_that_an_event_spelt_out_is_left_alone() -> None:
    forged = placeholder("TOKEN", "guessed")
    assert msgspec.json.decode(secrecy({"word": forged}).parameters) == {"word": forged}
    unguarded = placeholder("TOKEN", "")
    assert msgspec.json.decode(secrecy({"word": unguarded}, nonce="").parameters) == {"word": unguarded}


def test_a_secret_without_a_value_is_refused_by_name() -> None:
    with pytest.raises(UnknownSecretError, match="NOWHERE"):
        secrecy({"word": placeholder("NOWHERE", "n0nce")})


def test_logs_show_neither_the_run_s_own_secrets_nor_those_of_others() -> None:
    assert secrecy({"word": TOKEN}).mask('a"b\\c and another-one at /home/ann') == "••• and ••• at /home/ann"


@given(JSON)
def test_what_is_stored_holds_no_secret_and_a_replay_gets_it_back(value: object) -> None:
    ours = secrecy({"word": TOKEN})
    body = msgspec.json.encode(value)
    stored = ours.cover(body)
    assert msgspec.json.encode('a"b\\c')[1:-1] not in stored
    assert msgspec.json.decode(ours.uncover(stored)) == value
