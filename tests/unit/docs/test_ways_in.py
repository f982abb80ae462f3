"""Every example of docs/ways-in.md is so: the files load, the commands and the programs bring their events in."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import httpx
import pytest
from tests.support.fake_bus import FakeBus
from tests.support.served import Served, served
from tests.support.services.install import find, on_path

from penstock.automations import load_texts
from penstock.events.bus import EVENTS

PAGE = (Path(__file__).parents[3] / "docs/ways-in.md").read_text(encoding="utf-8")
SECRETS = {"GITHUB": "a-secret-of-github", "PAYMENTS": "a-secret-of-payments"}
FLOWS = {"write_report": {"type": "object", "properties": {"due": {"type": "string"}}, "required": ["due"]}}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


RULE_FILES, PROGRAMS, COMMANDS = blocks("yaml"), blocks("python"), blocks("sh")


def test_the_page_has_its_examples() -> None:
    assert (len(RULE_FILES), len(PROGRAMS), len(COMMANDS)) == (8, 4, 6)
    assert len(blocks("python kafka")) == len(blocks("sh mqtt")) == len(blocks("sh setup")) == 1


@pytest.mark.parametrize("text", RULE_FILES)
def test_a_rule_file_has_nothing_wrong(text: str) -> None:
    assert load_texts({"rules.yaml": text}, flows=FLOWS).problems == ()


def test_all_rule_files_go_together() -> None:
    files = {f"{number}.yaml": text for number, text in enumerate(RULE_FILES)}
    assert load_texts(files, flows=FLOWS).problems == ()


def test_the_program_for_kafka_compiles() -> None:
    compile(blocks("python kafka")[0], "kafka.py", "exec")


async def test_commands_and_programs_bring_their_events_in(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("curl", "openssl"):
        find(on_path(program), what=program, packages=[program], variable="PATH")
    for name, secret in SECRETS.items():
        monkeypatch.setenv(f"PENSTOCK_SECRET_{name}", secret)
    bus = FakeBus()
    async with served(sqlite_url, bus) as api:
        await apply(api, {f"{number}.yaml": text for number, text in enumerate(RULE_FILES) if "webhooks:" in text})
        environment = {**os.environ, "PENSTOCK_API_URL": api.url, "PENSTOCK_API_KEY": api.key, "NO_PROXY": "*"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        for text in COMMANDS:
            await run(["bash", "-euc", text], environment, tmp_path)
        for text in PROGRAMS:
            await run([sys.executable, "-c", text], environment, tmp_path)
    events = [json.loads(record.value) for record in bus.records(EVENTS)]
    [push] = [event for event in events if event["type"].startswith("github.")]  # its id is a digest of its body
    assert sorted(event["id"] for event in events if event is not push) == [
        *(f"A-{number}" for number in range(1, 6)), *(f"P-{number}" for number in range(1, 6)), "W-2"
    ]  # fmt: skip
    types = {event["id"]: (event["type"], event.get("subject")) for event in events}
    assert types[push["id"]] == ("github.push", "acme/shop")
    assert types["W-2"] == ("payment.received", "order/9")


async def run(command: list[str], environment: dict[str, str], folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (command[-1], out, err)


async def apply(api: Served, files: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {api.key}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, trust_env=False) as client:
        answer = await client.post("/api/v1/namespaces/default/rules", json={"files": files})
    assert answer.is_success, answer.text
    await api.context.rulebook.refresh()
