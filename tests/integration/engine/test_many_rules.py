"""An engine with ten thousand rules."""

from __future__ import annotations

import json

from tests.support.rig import Rig
from tests.support.scale import scaled

from penstock.events import Event
from penstock.services.database import tables
from penstock.services.engine.compiled import CompiledRules

RULE = (
    '  - {{name: r{n}, when: {{event: meter.read, where: {{subject: ["m{n}"]}}, per: subject, count: 2, within: 1h}},'
    " then: [{{emit: {{type: meter.twice}}}}]}}\n"
)


async def test_an_engine_with_ten_thousand_rules_decides_by_the_one_that_matches(rig: Rig) -> None:
    count = scaled(10_000)
    await rig.apply("automations:\n" + "".join(RULE.format(n=n) for n in range(count)))
    await rig.start_engine()
    readings = [
        Event(id=f"e{n}-{subject}", source="/m", type="meter.read", subject=subject)
        for subject in (f"m{count - 1}", f"m{count}")
        for n in range(2)
    ]
    await rig.publish(readings)
    await rig.wait_for_decisions(1)
    await rig.all_read()
    [row] = await rig.rows(tables.decision)
    assert (row.automation, json.loads(row.key)) == (f"r{count - 1}", f"m{count - 1}")


async def test_old_revisions_are_let_go_and_found_again(rig: Rig) -> None:
    compiled = CompiledRules(rig.context.rulebook)
    for n in range(20):
        await rig.apply("automations:\n" + RULE.format(n=n))
        await compiled.current()
    assert len(rig.context.rulebook._known) < 12
    assert len(compiled._compiled) < 8
    assert list((await compiled.get(1)).automations) == ["r0"]
    assert list((await compiled.current()).automations) == ["r19"]
