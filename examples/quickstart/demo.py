"""`make demo`: everything in one process, on real input, told as a story on the terminal.

ONCE=1 approves by the command line, prints the timeline, and exits 0 only if every hop happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from examples.quickstart.story import Story, StoryError, missing_hops
from rich.console import Console

from penstock.services.standins import Call, StandIn

HERE = Path(__file__).resolve().parent
_console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Tell it; returns the exit code."""
    once = os.environ.get("ONCE", "") not in ("", "0")
    began = time.monotonic()
    with _folder(once) as folder, _standins() as standins, _penstock(folder, standins) as (process, environment):
        try:
            story = _opened(folder, environment, process)
            ok = _tell(story, once=once)
        except (StoryError, httpx.HTTPError) as error:
            _console.print(f"[red]the story stopped:[/] {error}\n  the log of Penstock is {folder / 'penstock.log'}")
            _show_log(folder)
            return 1
        _console.print(f"told in {time.monotonic() - began:.1f} s")
        if not once:
            _console.print(f"\nThe page stays up: [bold]{story.url}/approvals[/]   (Ctrl-C ends it)")
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
    return 0 if ok else 1


def _tell(story: Story, *, once: bool) -> bool:
    story.ready()
    _say("rules and flows are in force; the sensor `machine` reads this machine's CPU, memory and disk each second")
    took = story.post_order()
    _say(f"POST /events: order {story.order} of 900 EUR, acknowledged in {took:.1f} ms (event {story.event_id})")
    approval = story.pending_approval()
    _say(f"it waits for a person: [bold]{approval['ask']}[/]")
    if once:
        _say("$ penstock approvals approve " + approval["id"])
        _say(story.approve_by_command(approval["id"]))
    else:
        _say(f"approve it at [bold]{story.url}/approvals[/] (sign in with the link above),")
        _say(f"or in another terminal: .venv/bin/penstock approvals approve {approval['id']}")
        outcome = story.decided(approval["id"], within=1_800)
        _say(f"decided: {outcome}")
        if outcome != "approved":
            return True
    hops = story.completed()
    tick = story.fired("still-here")
    watched = story.machine_run()
    _say(f"the schedule `tick` has fired: decision {tick['id']} of the rule still-here")
    _say(f"three readings of the sensor have launched run {watched['id']} of look-at-machine: {watched['state']}")
    _print_timeline(hops)
    missing = missing_hops(hops)
    if missing:
        _console.print(f"[red]these hops did not happen, or not in order:[/] {', '.join(missing)}")
    return not missing


def _opened(folder: Path, environment: dict[str, str], process: subprocess.Popen[bytes]) -> Story:
    """The story, once `penstock up` has said where it is."""
    instance = folder / "instance.json"
    deadline = time.monotonic() + 25
    while not instance.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise StoryError("`penstock up` did not come up")
        time.sleep(0.05)
    found = json.loads(instance.read_text())
    command = [sys.executable, "-m", "penstock.services.cli"]
    _show_sign_in(folder)
    return Story(found["url"], Path(found["key_file"]).read_text().strip(), command, environment)


@contextlib.contextmanager
def _folder(once: bool) -> Iterator[Path]:
    """Where this Penstock keeps its state: thrown away with ONCE=1, else .penstock/demo."""
    if once:
        with tempfile.TemporaryDirectory(prefix="penstock-demo-") as name:
            yield Path(name)
    else:
        folder = Path(".penstock/demo").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


@contextlib.contextmanager
def _standins() -> Iterator[str]:
    """Slack and Twilio without an account: a local server that shows each message. Yields its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    standin = StandIn(show=_show_message)
    asyncio.run_coroutine_threadsafe(standin.start(), loop).result(10)
    try:
        yield standin.url
    finally:
        asyncio.run_coroutine_threadsafe(standin.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


@contextlib.contextmanager
def _penstock(folder: Path, standins: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """`penstock up` in the quickstart's folder, stopped at the end."""
    given = dict(os.environ)
    environment = {**given, "PENSTOCK_DATA_DIR": str(folder), "PENSTOCK_PORT": given.get("PENSTOCK_PORT", "0")}
    for provider, secret in (("SLACK", "PENSTOCK_SECRET_SLACK"), ("TWILIO", "PENSTOCK_SECRET_SMS")):
        if not given.get(secret):  # without an account, to the stand-in
            environment |= {secret: "stand-in", f"PENSTOCK_{provider}_BASE_URL": standins}
    command = [sys.executable, "-m", "penstock.services.cli", "up"]
    with (folder / "penstock.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=HERE, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 -- our own program
        try:
            yield process, environment
        finally:
            (folder / "instance.json").unlink(missing_ok=True)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _show_message(call: Call) -> None:
    _console.print(f"  [cyan]{call.provider}[/] to {call.to}: {call.text}")


def _show_sign_in(folder: Path) -> None:
    lines = (folder / "penstock.log").read_text(errors="replace").splitlines()
    for line in lines:
        if "sign in" in line:
            _console.print(line.strip())


def _show_log(folder: Path) -> None:
    for line in (folder / "penstock.log").read_text(errors="replace").splitlines()[-30:]:
        print("   |", line)


def _say(text: str) -> None:
    _console.print(f"• {text}")


def _print_timeline(hops: list[dict[str, Any]]) -> None:
    _console.print("[bold]one event, hop by hop[/]")
    for hop in hops:
        _console.print(f"{hop['ms']:9.1f} ms  {hop['hop']:<20} {hop['id']:<36}  {hop['detail']}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
