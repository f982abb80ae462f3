"""compose.yaml is whole: every service, health checks, volumes, pinned images, no secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
OURS = ["api", "engine", "scheduler", "sensors", "notifier", "worker"]
THEIRS = {"kafka": "kafka-data", "postgres": "postgres-data", "redis": "redis-data"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())
    return found


def test_each_service_has_a_container_and_nothing_else_has(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*OURS, *THEIRS, "migrate"}


@pytest.mark.parametrize("name", OURS)
def test_a_service_starts_by_its_name_after_the_migration(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["command"] == ["service", name]
    assert service["build"] == "."
    assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert service["depends_on"]["kafka"] == service["depends_on"]["redis"] == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_every_lasting_container_has_a_health_check_and_comes_back(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"


def test_the_schema_is_brought_up_to_date_once_the_database_answers(compose: dict[str, Any]) -> None:
    migrate = compose["services"]["migrate"]
    assert migrate["command"] == ["db", "upgrade"]
    assert migrate["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize(("name", "volume"), THEIRS.items())
def test_what_must_last_lies_in_a_named_volume(compose: dict[str, Any], name: str, volume: str) -> None:
    assert volume in compose["volumes"]
    assert any(mount.startswith(f"{volume}:/") for mount in compose["services"][name]["volumes"])


def test_images_are_pinned_to_a_release(compose: dict[str, Any]) -> None:
    used = [compose["services"][name]["image"] for name in THEIRS]
    used += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for image in used:
        assert re.search(r":\d+\.\d+\.?\d*", image), image


def test_the_kafka_image_is_the_release_that_the_tests_run() -> None:
    pom = (ROOT / "tests/support/services/pom.xml").read_text()
    version = re.search(r"kafka_2.13</artifactId>\s*<version>([^<]+)<", pom)
    assert version is not None
    assert f"image: apache/kafka:{version[1]}\n" in (ROOT / "compose.yaml").read_text()
    assert f'IMAGE = "apache/kafka:{version[1]}"' in (ROOT / "tests/support/services/kafka.py").read_text()


@pytest.mark.parametrize("name", OURS)
def test_services_are_told_where_everything_is(compose: dict[str, Any], name: str) -> None:
    environment = compose["services"][name]["environment"]
    assert environment["PENSTOCK_BUS_URL"] == "kafka://kafka:9092"
    assert environment["PENSTOCK_REDIS_URL"] == "redis://redis:6379/0"
    assert environment["PENSTOCK_DATABASE_URL"].startswith("postgresql+asyncpg://penstock:${POSTGRES_PASSWORD:?")


def test_no_secret_is_written_down_and_http_is_forwarded_to_loopback_alone(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for key, value in (service.get("environment") or {}).items():
            if re.search("password|secret|token|key", key, re.IGNORECASE):
                assert str(value).startswith("${"), key
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
