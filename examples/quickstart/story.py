"""The quickstart's story, told against a running Penstock: post an order, have it approved, wait for every hop.

Used by `make demo` (see demo.py) and by the acceptance tests, which play it through separate processes.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import httpx

Found = TypeVar("Found")
PATIENCE = 25.0  # seconds for each hop


class StoryError(Exception):
    """A hop did not happen; the text says which."""


@dataclass
class Story:
    """One telling. url, key: of the API.  penstock: the command line's program and its environment."""

    url: str
    key: str
    penstock: list[str]
    environment: dict[str, str]
    order: str = field(default_factory=lambda: f"A-{uuid4().hex[:6]}")
    event_id: str = field(default_factory=lambda: str(uuid4()))

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=10, trust_env=False)

    def get(self, path: str, **parameters: Any) -> Any:
        """GET below the namespace."""
        return self._http.get(f"/api/v1/namespaces/default/{path}", params=parameters).raise_for_status().json()

    def wait_for(self, what: str, look: Callable[[], Found | None], within: float = PATIENCE) -> Found:
        """Look until there is something.  Raises StoryError."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.05)
        raise StoryError(f"waited {within:g} s in vain for {what}")

    def ready(self) -> None:
        """Until the flows are registered and the rules are in force."""
        self.wait_for("the worker to register its flows", lambda: self.get("flows")["flows"])
        self.wait_for("the rules to be in force", lambda: self.get("rules").get("revision"))

    def post_order(self, amount: int = 900) -> float:
        """POST a CloudEvent; returns the milliseconds until it was acknowledged."""
        event = {
            "specversion": "1.0",
            "id": self.event_id,
            "source": "/quickstart/shop",
            "type": "order.placed",
            "subject": self.order,
            "data": {"amount": amount, "customer": "Ada"},
        }
        began = time.monotonic()
        headers = {"Content-Type": "application/cloudevents+json"}
        self._http.post("/events", json=event, headers=headers).raise_for_status()
        return (time.monotonic() - began) * 1_000

    def pending_approval(self) -> dict[str, Any]:
        """The approval that the order waits for."""

        def look() -> dict[str, Any] | None:
            pending = self.get("approvals", status="pending")["approvals"]
            return next((each for each in pending if self.order in each["ask"]), None)

        return self.wait_for("the approval to be asked for", look)

    def approve_by_command(self, approval_id: str) -> str:
        """`penstock approvals approve ID`; returns what it prints."""
        command = [*self.penstock, "approvals", "approve", approval_id]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 -- our own program
        if done.returncode != 0:
            raise StoryError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def decided(self, approval_id: str, within: float) -> str:
        """How a person decided, once they have."""

        def look() -> str | None:
            status: str = self.get(f"approvals/{approval_id}")["status"]
            return None if status == "pending" else status

        return self.wait_for("a person to decide", look, within)

    def hops(self) -> list[dict[str, Any]]:
        """The timeline of the order so far."""
        answer = self._http.get(f"/api/v1/namespaces/default/timeline/{self.event_id}")
        return [] if answer.status_code == 404 else list(answer.raise_for_status().json()["hops"])

    def completed(self) -> list[dict[str, Any]]:
        """The timeline of the order, once its last message is out."""

        def look() -> list[dict[str, Any]] | None:
            found = self.hops()
            return found if sum(1 for each in found if each["hop"] == "message.delivered") >= MESSAGES else None

        return self.wait_for("the last message to be out", look)

    def fired(self, automation: str) -> dict[str, Any]:
        """The newest decision of a rule."""

        def look() -> dict[str, Any] | None:
            found = self.get("decisions", automation=automation, limit=1)["decisions"]
            return found[0] if found else None

        return self.wait_for(f"the rule {automation} to fire", look)

    def machine_run(self) -> dict[str, Any]:
        """A completed run of the flow that the sensor's readings launch."""

        def look() -> dict[str, Any] | None:
            runs = self.get("runs", limit=50)["runs"]
            return next(
                (each for each in runs if each["flow"] == "look-at-machine" and each["state"] == "completed"), None
            )

        return self.wait_for("a run that the sensor's readings launch", look)


MESSAGES = 3  # two to Slack, one by SMS
EXPECTED = (  # in this order, among others
    "event.arrived",
    "automation.fired",
    "message.delivered",
    "message.delivered",
    "approval.requested",
    "approval.approved",
    "run.running",
    "task.completed",
    "task.completed",
    "run.completed",
    "message.delivered",
)


def missing_hops(found: list[dict[str, Any]]) -> list[str]:
    """The expected hops that are not in the timeline, or not in their order."""
    names = iter([each["hop"] for each in found])
    return [wanted for wanted in EXPECTED if not any(name == wanted for name in names)]
