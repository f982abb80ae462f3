"""`penstock rules check|apply`"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.automations import Problem

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="a directory of rule files, or one file")]


@app.command()
def check(
    folder: Folder,
    flows: Annotated[
        list[str] | None, typer.Option(metavar="MODULE", help="where the flows are: a module or a .py file")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Check rule files, all of them, without any service; exit code 1 if something is wrong."""
    from penstock.automations import load

    _must_exist(folder)
    found = load(folder, flows=_schemas(flows) if flows else None)
    if as_json:
        from dataclasses import asdict

        print(json.dumps([asdict(problem) for problem in found.problems], indent=2, ensure_ascii=False))
    else:
        _print(found.problems)
    if found.errors:
        raise typer.Exit(1)
    if not as_json:
        print(f"{_counted(len(found.rules), 'rule')}, {_verdict(len(found.problems))}")


@app.command()
def apply(folder: Folder) -> None:
    """Put the rule files of a directory in force, in the place of all that were."""
    from penstock.automations import Problem
    from penstock.services.cli.client import ApiRefusedError, connect, read_folder

    try:
        found = connect().post("rules", {"files": read_folder(folder)})
    except ApiRefusedError as error:
        if "problems" not in error.problem:
            raise
        _print([_placed(Problem(**problem), folder) for problem in error.problem["problems"]])
        raise typer.Exit(1) from None
    _print([_placed(Problem(**problem), folder) for problem in found["problems"]])
    print(f"revision {found['revision']} is in force" + ("" if found["changed"] else " already: nothing has changed"))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _verdict(warnings: int) -> str:
    return f"no errors, {_counted(warnings, 'warning')}" if warnings else "nothing wrong"


def _must_exist(folder: Path) -> None:
    from penstock.services.cli.client import CommandError

    if not folder.exists():
        raise CommandError(f"{folder}: there is no such directory or file")


def _schemas(modules: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """The parameters of the flows by every name that a rule may use.  Raises CommandError for one that is broken."""
    from penstock.flows.load import load_flows
    from penstock.services.cli.client import CommandError

    library = load_flows(modules)
    if library.problems:
        raise CommandError("; ".join(str(problem) for problem in library.problems))
    found = {}
    for name, loaded in library.flows.items():
        found[name] = found[f"{loaded.module}:{name}"] = loaded.schema
    return found


def _placed(problem: Problem, folder: Path) -> Problem:
    """With the path as the user gave it, so that terminals and editors can jump there."""
    from dataclasses import replace

    return replace(problem, file=str(folder / problem.file)) if folder.is_dir() else replace(problem, file=str(folder))


def _print(problems: Sequence[Problem]) -> None:
    from penstock.services.cli.output import plain

    for problem in problems:
        print(plain(str(problem)), file=sys.stderr)
