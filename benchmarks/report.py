"""Figures: printed as a table, and kept as JSON in benchmarks/out/<target>.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True)
class Figure:
    """One measure. floor: what it is compared with, measured in the same run; ratio: value / floor."""

    measure: str
    unit: str
    value: float
    floor: float | None = None
    goal: float | None = None
    goal_is_ratio: bool = False
    higher_is_better: bool = True

    @property
    def ratio(self) -> float | None:
        """How many times the floor."""
        return self.value / self.floor if self.floor else None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is met; None without one."""
        found = self.ratio if self.goal_is_ratio else self.value
        if self.goal is None or found is None:
            return None
        return found >= self.goal if self.higher_is_better else found <= self.goal


def report(target: str, figures: list[Figure]) -> None:
    """Print them, and write benchmarks/out/<target>.json."""
    OUT.mkdir(exist_ok=True)
    rows = [{**asdict(each), "ratio": each.ratio} for each in figures]
    (OUT / f"{target}.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = Table(title=target, box=None, pad_edge=False)
    for name in ("measure", "value", "unit", "floor", "ratio", "goal", ""):
        table.add_column(name, justify="left" if name in ("measure", "unit", "") else "right")
    for each in figures:
        table.add_row(*_cells(each))
    Console(width=140).print(table)


def _cells(each: Figure) -> list[str]:
    sign, times = "≥" if each.higher_is_better else "≤", "x" if each.goal_is_ratio else ""
    goal = "" if each.goal is None else f"{sign} {each.goal:g}{times}"
    verdict = {None: "", True: "reached", False: "missed"}[each.reached]
    ratio = "" if each.ratio is None else f"{each.ratio:.2f}x"
    floor = "" if each.floor is None else f"{each.floor:,.1f}"
    return [each.measure, f"{each.value:,.1f}", each.unit, floor, ratio, goal, verdict]


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile: share 0.5 is the median."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]
