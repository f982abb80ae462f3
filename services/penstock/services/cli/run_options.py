"""The options by which commands choose runs."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

States: TypeAlias = Annotated[
    list[str] | None, typer.Option("--state", help="running, paused, failed, …; several: one of them")
]
Flow: TypeAlias = Annotated[str | None, typer.Option(help="runs of this flow")]
Deployment: TypeAlias = Annotated[str | None, typer.Option(help="runs of this deployment")]
Automation: TypeAlias = Annotated[str | None, typer.Option(help="runs that this automation launched")]
Tag: TypeAlias = Annotated[str | None, typer.Option(help="runs with this tag, or of flows with it")]
Since: TypeAlias = Annotated[
    str | None, typer.Option(help="made since then: 2h, 7d, 2026-11-21, 2026-11-21T08:00:00Z", metavar="WHEN")
]
Until: TypeAlias = Annotated[str | None, typer.Option(help="made before then, written likewise", metavar="WHEN")]
