"""deploy/healthcheck.py: 0 where bus and database answer, 1 with a reason where one does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "deploy" / "healthcheck.py"


def check(bus_url: str, database_url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PENSTOCK_BUS_URL": bus_url, "PENSTOCK_DATABASE_URL": database_url}
    return subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)


def test_a_service_is_healthy_while_its_bus_and_database_answer(kafka_bus_url: str, postgres_url: str) -> None:
    assert check(kafka_bus_url, postgres_url).returncode == 0


def test_a_service_is_unhealthy_without_its_database(redis_bus_url: str) -> None:
    done = check(redis_bus_url, "postgresql+asyncpg://127.0.0.1:1/none")
    assert done.returncode == 1
    assert done.stderr.strip()
