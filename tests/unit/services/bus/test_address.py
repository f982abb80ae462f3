"""Bus URLs, and what is refused without showing a password."""

from __future__ import annotations

import pytest

from penstock.services.bus import BusAddress, BusUrlError, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("kafka://a:9092,b:9092?prefix=x.", BusAddress("kafka", "a:9092,b:9092", "x.")),
        ("kafka://a:9092", BusAddress("kafka", "a:9092")),
        ("redis://:pw@h:6379/2?prefix=x:", BusAddress("redis", "redis://:pw@h:6379/2", "x:")),
        ("unix:///run/redis.sock?db=1&prefix=x:", BusAddress("redis", "unix:///run/redis.sock?db=1", "x:")),
    ],
)
def test_a_url_is_taken_apart(url: str, address: BusAddress) -> None:
    assert parse_address(url) == address


def test_a_refused_url_is_not_repeated_in_the_error() -> None:
    with pytest.raises(BusUrlError) as refused:
        parse_address("amqp://user:secret@host")
    assert "secret" not in str(refused.value)
    assert "kafka://" in str(refused.value)
