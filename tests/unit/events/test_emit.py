"""What `emit` makes of its arguments, where it sends, and what it needs installed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.events import AsyncEmitter, Emitter, Event, InvalidEventError, NoTargetError, TargetUrlError
from penstock.events.emit import _NOTHING, prepare
from penstock.events.targets import choose_target, parse_target


def made(event: Any, data: Any = _NOTHING, subject: str | None = None, **attributes: Any) -> Event:
    (found,), _ = prepare(event, data, subject, attributes)
    return found


def test_a_type_with_its_data_becomes_an_event_dated_now() -> None:
    event = made("order.placed", {"total": 42}, "order/7", partitionkey="graz", shop="north")
    assert (event.type, event.subject, event.partitionkey) == ("order.placed", "order/7", "graz")
    assert event.to_mapping()["shop"] == "north"
    assert event.time is not None
    assert abs((datetime.now(UTC) - event.time).total_seconds()) < 10


def test_no_data_is_not_null() -> None:
    assert "data" not in made("a.b").to_mapping()
    assert made("a.b", None).to_mapping()["data"] is None


def test_a_given_time_is_kept() -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    assert made("a.b", time=moment).time == moment
    assert made(Event(type="a.b", time=moment)).time == moment
    assert made("a.b", time="2026-03-01T00:00:00Z").time == moment


@pytest.mark.parametrize(
    ("event", "data", "attributes", "field"),
    [
        ("penstock.run.completed", _NOTHING, {}, "type"),
        ("", _NOTHING, {}, "type"),
        ("a.b", _NOTHING, {"id": ""}, "id"),
        ("a.b", _NOTHING, {"Upper": "x"}, ""),
        ("a.b", _NOTHING, {"time": "yesterday"}, "time"),
        ("a.b", float("nan"), {}, "data"),
        ("a.b", {"a": object()}, {}, "data"),
        ("a.b", "x" * (1 << 20), {}, ""),
        (Event(type="a.b"), {"a": 1}, {}, ""),
        ([Event(type="a.b"), "a.b"], _NOTHING, {}, ""),
    ],
)
def test_what_is_no_event_is_refused_before_anything_is_sent(
    event: Any, data: Any, attributes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidEventError) as refused:
        prepare(event, data, None, attributes)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("url", "kind", "server", "prefix"),
    [
        ("kafka://a:9092,b:9092", "kafka", "a:9092,b:9092", ""),
        ("kafka://a:9092?prefix=x.", "kafka", "a:9092", "x."),
        ("redis://u:p@h:6379/3?prefix=x:&db=3", "redis", "redis://u:p@h:6379/3?db=3", "x:"),
        ("unix:///run/redis.sock", "redis", "unix:///run/redis.sock", ""),
        ("https://penstock.example/base/", "http", "https://penstock.example/base", ""),
    ],
)
def test_the_url_chooses_the_transport(url: str, kind: str, server: str, prefix: str) -> None:
    target = parse_target(url, "key")
    assert (target.kind, target.server, target.prefix) == (kind, server, prefix)
    assert (target.key == "key") == (kind == "http")


@pytest.mark.parametrize("url", ["amqp://h", "h:9092", "kafka://", "unix://", "password"])
def test_an_unknown_url_is_refused_without_showing_it_all(url: str) -> None:
    with pytest.raises(TargetUrlError) as refused:
        AsyncEmitter(url)
    assert "password" not in str(refused.value)


def test_the_environment_is_asked_in_order(tmp_path: Path) -> None:
    environ = {
        "PENSTOCK_BUS_URL": "kafka://bus", "PENSTOCK_URL": "http://api", "PENSTOCK_API_KEY": "k",
        "PENSTOCK_DATA_DIR": str(tmp_path),
    }  # fmt: skip
    (tmp_path / "key").write_text("secret\n")
    (tmp_path / "instance.json").write_text(json.dumps({"url": "http://here:1", "key_file": str(tmp_path / "key")}))
    assert choose_target("redis://mine", environ=environ).server == "redis://mine"
    assert choose_target(environ=environ).server == "bus"
    del environ["PENSTOCK_BUS_URL"]
    assert choose_target(environ=environ) == parse_target("http://api", "k")
    assert choose_target(environ=environ | {"PENSTOCK_API_URL": "http://new"}) == parse_target("http://new", "k")
    del environ["PENSTOCK_URL"], environ["PENSTOCK_API_KEY"]
    assert choose_target(environ=environ) == parse_target("http://here:1", "secret")
    (tmp_path / "instance.json").unlink()
    with pytest.raises(NoTargetError, match="PENSTOCK_BUS_URL"):
        choose_target(environ=environ)


def test_a_missing_target_is_told_when_the_emitter_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoTargetError):
        Emitter()


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )


BLOCK = """
    import sys

    class OnlyTheBase:
        allowed = {"pydantic", "pydantic_core", "msgspec", "aiokafka", "typing_extensions", "typing_inspection",
                   "annotated_types", "async_timeout", "packaging", "cramjam", "penstock", "lz4"}

        def find_spec(self, name, path=None, target=None):
            top = name.partition(".")[0]
            if top not in self.allowed and top not in sys.stdlib_module_names and "sysconfig" not in top:
                raise ModuleNotFoundError(f"blocked: {name}", name=name)

    sys.meta_path.insert(0, OnlyTheBase())
"""


def test_emitting_needs_nothing_but_the_base_packages() -> None:
    program = (
        BLOCK
        + """
    import penstock.events, penstock.events.codec, penstock.events.webhooks, penstock.events.signatures
    import penstock.events.sensors, penstock.events.types
    from penstock.events.transports import open_transport
    from penstock.events.targets import parse_target
    assert "aiokafka" not in sys.modules, "loaded only when it is chosen"
    open_transport(parse_target("kafka://h:1"))
    open_transport(parse_target("http://h:1"))
    """
    )
    done = _run(program)
    assert done.returncode == 0, done.stderr


def test_a_missing_redis_client_is_told_with_what_to_install() -> None:
    program = (
        BLOCK
        + """
    from penstock.events import emit
    import os
    os.environ["PENSTOCK_BUS_URL"] = "redis://h:1"
    emit("a.b")
    """
    )
    done = _run(program)
    assert "penstock[server]" in done.stderr
    assert "ClientMissingError" in done.stderr
