"""mosquitto for the tests: a real MQTT broker."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.services.install import find, on_path
from tests.support.services.process import Given, Service

_CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x0a\x00\x04test"  # version 3.1.1, clean session
_ACCEPTED = b"\x20\x02\x00\x00"


class Mosquitto(Service):
    """An own broker, open to everybody on the loopback, its retained messages and sessions on disk."""

    name = "mosquitto"

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        return answers("127.0.0.1", self.port)

    def _prepare(self, folder: Path) -> None:
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence true"]
        lines += [f"persistence_location {folder}/", f"user {getpass.getuser()}"]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def _command(self, folder: Path) -> Sequence[str]:
        program = find(
            on_path("mosquitto"),
            what="mosquitto",
            packages=["mosquitto", "mosquitto-clients"],
            variable="PENSTOCK_TEST_MQTT_URL",
        )
        return [program, "-c", str(folder / "mosquitto.conf")]


class GivenMosquitto(Given):
    """The broker behind PENSTOCK_TEST_MQTT_URL."""

    name = "mosquitto"

    def __init__(self, url: str) -> None:
        self.url, self.port = url, urlsplit(url).port or 1883


def mosquitto_pub() -> str:
    """The path of the command-line publisher."""
    return find(
        on_path("mosquitto_pub"),
        what="mosquitto_pub",
        packages=["mosquitto-clients"],
        variable="PENSTOCK_TEST_MQTT_URL",
    )


def answers(host: str, port: int) -> bool:
    """Whether a broker accepts a session."""
    try:
        with socket.create_connection((host, port), timeout=1) as line:
            line.sendall(_CONNECT)
            return line.recv(4) == _ACCEPTED
    except OSError:
        return False
