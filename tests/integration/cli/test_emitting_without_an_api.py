"""`penstock emit` where only the bus is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from penstock.events.bus import EVENTS, TopicPartition
from penstock.services.bus import connect


async def test_the_event_goes_straight_onto_the_bus(redis_bus_url: str, tmp_path: Path) -> None:
    bus = await connect(redis_bus_url)
    await bus.ensure_topic(EVENTS, 1)
    command = [
        sys.executable,
        "-m",
        "penstock.services.cli",
        "emit",
        "order.placed",
        "--data",
        '{"n": 1}',
        "--id",
        "e1",
    ]
    environment = {**os.environ, "PENSTOCK_BUS_URL": redis_bus_url}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "e1\n", "")
    reader = bus.reader()
    log = TopicPartition(EVENTS, 0)
    await reader.take(log, await bus.beginning(log))
    [record] = (await reader.poll(max_records=10, timeout=5.0))[log]
    await reader.close()
    await bus.close()
    event = json.loads(record.value)
    assert (event["id"], event["type"], event["data"]) == ("e1", "order.placed", {"n": 1})
