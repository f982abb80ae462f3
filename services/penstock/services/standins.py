"""Stand-ins for Slack and Twilio: they answer as those do, keep a record of every call, and can be told to fail.

For the demo without an account, and for tests. `python -m penstock.services.standins --port 9000` shows each message on
the terminal. Channels point at it with `base_url: http://127.0.0.1:9000`.

POST /api/chat.postMessage                         as Slack
POST /2010-04-01/Accounts/{sid}/Messages.json      as Twilio
GET  /calls                                        the record, JSON
POST /faults                                       what to do wrong next: a list of {status, error, retry_after, delay,
                                                   times, only, drop}
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from aiohttp import web

Provider = Literal["slack", "twilio"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came. answered: the HTTP status; 0 where the connection was cut.

    id: Slack's client_msg_id, "" for Twilio.  token: what it was authorised with.
    """

    provider: Provider
    at: float  # seconds since the epoch
    to: str
    text: str
    id: str
    token: str
    answered: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do wrong, `times` times.

    status: of the answer.  error: Slack's `ok: false` with this error, or Twilio's message.  retry_after: seconds.
    delay: seconds before the answer.  only: one provider, or a recipient.  drop: note the call, answer as asked, but
    cut the connection instead of sending it.
    """

    status: int = 200
    error: str = ""
    retry_after: int | None = None
    delay: float = 0.0
    times: int = 1
    only: str = ""
    drop: bool = False


@dataclass
class StandIn:
    """One server on the loopback: `async with StandIn() as standin`.

    show: called for each call.  record: a file that each call is appended to as a JSON line.  before_answer: awaited
    for each call once it is noted; the answer is sent when it returns.
    """

    port: int = 0  # 0: any free one
    show: Callable[[Call], None] | None = None
    record: Path | None = None
    before_answer: Callable[[Call], Awaitable[None]] | None = None
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    async def __aenter__(self) -> StandIn:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; `port` is known afterwards."""
        app = web.Application()
        app.router.add_post("/api/chat.postMessage", self._slack)
        app.router.add_post("/2010-04-01/Accounts/{sid}/Messages.json", self._twilio)
        app.router.add_get("/calls", self._show_calls)
        app.router.add_post("/faults", self._take_faults)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        self._numbers = itertools.count(1)
        self._changed = asyncio.Condition()

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """For `base_url`."""
        return f"http://127.0.0.1:{self.port}"

    def of(self, provider: Provider) -> list[Call]:
        """The calls of one provider that were answered with success."""
        return [call for call in self.calls if call.provider == provider and call.answered in (200, 201)]

    async def wait_for(self, count: int, provider: Provider = "slack", within: float = 30.0) -> list[Call]:
        """The successful calls of a provider, once there are `count` of them.  Raises TimeoutError."""
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(lambda: len(self.of(provider)) >= count)
        return self.of(provider)

    async def _slack(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        call = Call(
            "slack",
            time.time(),
            str(body.get("channel", "")),
            str(body.get("text", "")),
            str(body.get("client_msg_id", "")),
            token,
            200,
            body,
        )
        ts = f"{int(call.at)}.{next(self._numbers):06d}"
        good = {"ok": True, "channel": call.to, "ts": ts, "message": {"text": call.text}}
        return await self._answer(request, call, good, lambda error: {"ok": False, "error": error})

    async def _twilio(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        token = base64.b64decode(credentials).decode().partition(":")[2] if scheme == "Basic" else ""
        to, text = str(body.get("To", "")), str(body.get("Body", ""))
        call = Call("twilio", time.time(), to, text, "", token, 201 if token else 401, body)
        good = {"sid": f"SM{next(self._numbers):032x}", "status": "queued", "to": to}
        return await self._answer(request, call, good, lambda error: {"code": 20001, "message": error})

    async def _answer(
        self, request: web.Request, call: Call, good: Mapping[str, Any], bad: Callable[[str], Mapping[str, Any]]
    ) -> web.StreamResponse:
        fault = self._fault(call)
        if fault is None:
            await self._note(call)
            return web.json_response(good, status=call.answered)
        await asyncio.sleep(fault.delay)
        wrong = bool(fault.error) or fault.status >= 300
        status = fault.status if fault.status != 200 else 400 if wrong and call.provider == "twilio" else call.answered
        answered = 0 if wrong and status < 300 else status  # Slack's `ok: false` comes with 200: no success for us
        await self._note(replace(call, answered=answered))
        if fault.drop and request.transport is not None:
            request.transport.close()
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        return web.json_response(bad(fault.error or "told to fail") if wrong else good, status=status, headers=headers)

    def _fault(self, call: Call) -> Fault | None:
        for at, fault in enumerate(self.faults):
            if fault.only in ("", call.provider, call.to):
                self.faults[at : at + 1] = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                return fault
        return None

    async def _note(self, call: Call) -> None:
        self.calls.append(call)
        if self.record is not None:
            with self.record.open("a") as file:  # written before the answer is sent
                file.write(json.dumps(asdict(call)) + "\n")
        if self.show is not None:
            self.show(call)
        async with self._changed:
            self._changed.notify_all()
        if self.before_answer is not None:
            await self.before_answer(call)

    async def _show_calls(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(call) for call in self.calls])

    async def _take_faults(self, request: web.Request) -> web.Response:
        self.faults += [Fault(**each) for each in await request.json()]
        return web.Response(status=204)


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type == "application/json":
        return dict(await request.json())
    return dict((await request.post()).items())


def show_on(stream: TextIO) -> Callable[[Call], None]:
    """Shows each message as two or more lines of text."""

    def show(call: Call) -> None:
        name = {"slack": "Slack", "twilio": "SMS"}[call.provider]
        failed = "" if call.answered in (200, 201) else f" [answered {call.answered or 'with an error'}]"
        lines = "".join(f"  │ {line}\n" for line in call.text.splitlines() or [""])
        stream.write(f"  ┌ {name} to {call.to}{failed}\n{lines}  └\n")
        stream.flush()

    return show


async def _serve(port: int, record: Path | None) -> None:
    async with StandIn(port, show_on(sys.stdout), record) as standin:
        sys.stdout.write(f"stand-in for Slack and Twilio on {standin.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Stand-in for Slack and Twilio: shows every message it gets.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--record", type=Path, help="append each call to this file, as JSON lines")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.port, arguments.record))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
