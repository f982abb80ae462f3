"""The small pure parts of the notifier: addresses, message ids, masking."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.automations import RetryPolicy, UnknownSecretError, environment_lookup
from penstock.services.deliveries import Message
from penstock.services.notifier.sender import Revealed
from penstock.services.notifier.sending import Text
from penstock.services.notifier.slack import api_url


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        (None, "https://slack.com/api/"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/api/"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000/api/"),
        ("https://slack-gov.com/api", "https://slack-gov.com/api/"),
        ("https://relay.example/slack/", "https://relay.example/slack/"),
    ],
)
def test_a_base_url_without_a_path_gets_slacks_own(base_url: str | None, expected: str) -> None:
    assert api_url(base_url) == expected


@given(st.text(), st.text())
def test_the_message_id_is_a_uuid_of_the_delivery_alone(delivery: str, text: str) -> None:
    first, again = Text(delivery, text, None, {}), Text(delivery, "other", "title", {"x": 1})
    assert first.client_id == again.client_id
    assert str(UUID(first.client_id)) == first.client_id


def test_what_was_revealed_is_blotted_out_of_whatever_comes_back() -> None:
    secrets = Revealed(environment_lookup({"PENSTOCK_SECRET_A": "hush", "PENSTOCK_SECRET_B": "other"}))
    assert secrets("A") == "hush"
    assert secrets.masked({"hush": ["a hush b", 1, None]}) == {"•••": ["a ••• b", 1, None]}
    assert secrets.masked("other stays: it was given to nobody") == "other stays: it was given to nobody"
    with pytest.raises(UnknownSecretError):
        secrets("C")


def test_a_row_as_the_engine_writes_it_is_read_with_its_retry_policy() -> None:
    retry = {"attempts": 3, "delay": 5, "backoff": 1.5, "max_delay": 50}
    body = msgspec.json.encode({"text": "t", "title": None, "retry": retry, "later": "ignored"})
    assert msgspec.json.decode(body, type=Message) == Message("t", None, RetryPolicy(3, 5, 1.5, 50))
    assert msgspec.json.decode(Message("t").to_json(), type=Message) == Message("t")
