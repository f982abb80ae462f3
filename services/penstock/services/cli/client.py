"""The API, as the command line speaks to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from penstock.events.errors import PenstockError
from penstock.services.project import load_settings
from penstock.services.settings import Settings

INSTANCE_FILE = "instance.json"  # {"url": …, "key_file": …}, written by `penstock up`
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class CommandError(PenstockError):
    """A command did not do what it was asked; the text is all that the user is told."""


class NoInstanceError(CommandError):
    """Nothing says where Penstock is."""


class ApiRefusedError(CommandError):
    """The API answered with a problem (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status, self.problem = status, problem
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))


@dataclass(frozen=True, slots=True)
class Instance:
    """Where Penstock is, and the key to it."""

    url: str
    key: str
    namespace: str


def find_instance(settings: Settings | None = None) -> Instance:
    """From PENSTOCK_API_URL and PENSTOCK_API_KEY, else from what `penstock up` left in the data directory.

    Raises CommandError, which says what to do.
    """
    settings = settings or load_settings()
    key = settings.api_key.get_secret_value()
    given = settings.api_url or os.environ.get("PENSTOCK_URL", "")  # the older name
    if given and key:
        return Instance(given, key, settings.namespace)
    path = settings.data_dir / INSTANCE_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        url = given or str(found["url"])
        key = key or (settings.data_dir / str(found["key_file"])).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise NoInstanceError(
            "no Penstock found: start one here with `penstock up`, or set PENSTOCK_API_URL and PENSTOCK_API_KEY"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{path} cannot be used ({error}): start `penstock up` again") from None
    return Instance(url, key, settings.namespace)


class Client:
    """Speaks to one instance; every failure is a CommandError with one line of text."""

    def __init__(self, instance: Instance, transport: httpx.BaseTransport | None = None) -> None:
        self.instance = instance
        self._http = httpx.Client(
            base_url=instance.url,
            headers={"Authorization": f"Bearer {instance.key}", "User-Agent": "penstock-cli"},
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=False,  # a proxy has nothing to do between us and our own service
        )

    def get(self, path: str, **parameters: Any) -> Any:
        """GET below the namespace.  Raises CommandError."""
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._send("GET", self._path(path), params=given)

    def post(self, path: str, body: object, **parameters: Any) -> Any:
        """POST JSON below the namespace.  Raises CommandError."""
        return self._send("POST", self._path(path), json=body, params=parameters)

    def delete(self, path: str) -> Any:
        """DELETE below the namespace.  Raises CommandError."""
        return self._send("DELETE", self._path(path))

    def post_event(self, body: bytes) -> None:
        """Send one structured CloudEvent; returns once the bus has it.  Raises CommandError."""
        self._send("POST", "/events", content=body, headers={"Content-Type": "application/cloudevents+json"})

    @contextmanager
    def lines(self, path: str, **parameters: Any) -> Iterator[Iterator[str]]:
        """Follow a stream, line by line.  Raises CommandError."""
        timeout = httpx.Timeout(None, connect=5.0)
        with (
            self._told(),
            self._http.stream("GET", self._path(path), params=parameters, timeout=timeout) as answer,
        ):
            if answer.is_error:
                answer.read()
                _check(answer)
            yield answer.iter_lines()

    def _path(self, path: str) -> str:
        return f"/api/v1/namespaces/{self.instance.namespace}/{path}"

    def _send(self, method: str, path: str, **more: Any) -> Any:
        with self._told():
            answer = self._http.request(method, path, **more)
        _check(answer)
        return answer.json() if answer.content else None

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise CommandError(f"no answer from {self.instance.url} ({reason}): is `penstock up` running?") from None


def connect(settings: Settings | None = None) -> Client:
    """A client of the instance that the settings name.  Raises CommandError."""
    return Client(find_instance(settings))


def read_folder(folder: Path) -> dict[str, str]:
    """The rule files below a folder: {path relative to it: text}.  Raises CommandError."""
    from penstock.services.rule_files import RuleFolderError, read_rule_files

    try:
        return read_rule_files([folder])
    except RuleFolderError as error:
        raise CommandError(str(error)) from None


def _check(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    raise ApiRefusedError(answer.status_code, problem if isinstance(problem, dict) else {})
