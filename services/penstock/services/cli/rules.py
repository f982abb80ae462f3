"""`penstock rules check|test|simulate|explain|apply|export-schema`"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.automations import Problem, RuleSet

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="a directory of rule files, or one file")]
Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RULES…", help="rule files and directories; none: those of the settings"),
]


class TestFormat(StrEnum):
    """How `test` reports."""

    text = "text"
    json = "json"


class DecisionFormat(StrEnum):
    """How `simulate` prints decisions."""

    jsonl = "jsonl"
    table = "table"


@app.command()
def check(
    rules: Paths = None,
    flows: Annotated[
        list[str] | None, typer.Option(metavar="MODULE", help="where the flows are: a module or a .py file")
    ] = None,
    schemas: Annotated[
        Path | None, typer.Option(metavar="DIR", help="JSON Schemas of the events' data: TYPE.json, one for each type")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="against what is in force; RULES is one directory then")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Check rule files, all of them, without any service; exit code 1 if something is wrong."""
    from penstock.automations import load

    paths = _paths(rules)
    if live:
        _check_live(paths, as_json=as_json)
        return
    known = _event_schemas(schemas) if schemas else None
    found = load(paths, flows=_schemas(flows) if flows else None, schemas=known)
    _tell(found.problems, as_json=as_json)
    if found.errors:
        raise typer.Exit(1)
    if not as_json:
        print(f"{_counted(len(found.rules), 'rule')}, {_verdict(len(found.problems))}")


@app.command("test")
def run_tests(
    rules: Paths = None,
    only: Annotated[str, typer.Option("--rule", metavar="NAME", help="only the tests of this rule")] = "",
    format_: Annotated[TestFormat, typer.Option("--format")] = TestFormat.text,
) -> None:
    """Run the `tests:` of rules with a virtual clock; exit code 1 if one fails."""
    from penstock.automations import run_examples
    from penstock.services.cli.rule_reports import print_outcomes

    found = _loaded(_paths(rules))
    outcomes = [each for each in run_examples(found.rules) if only in ("", each.automation.name)]
    if format_ is TestFormat.json:
        print(json.dumps([each.to_mapping() for each in outcomes], indent=2, ensure_ascii=False))
    else:
        print_outcomes(outcomes)
    if not all(each.passed for each in outcomes):
        raise typer.Exit(1)


@app.command()
def simulate(
    rules: Annotated[list[Path], typer.Argument(metavar="RULES…", help="rule files and directories")],
    events: Annotated[
        Path,
        typer.Option(metavar="FILE.jsonl", help="CloudEvents, one a line, in order of arrival; - is stdin"),
    ],
    until: Annotated[str, typer.Option(metavar="TIME", help="where the clock stops; none: at the last arrival")] = "",
    assume_run_time: Annotated[str, typer.Option(metavar="DURATION", help="how long actions take, for `mode`")] = "",
    format_: Annotated[DecisionFormat, typer.Option("--format")] = DecisionFormat.jsonl,
) -> None:
    """Show what rules would decide over recorded events, with a virtual clock and no services."""
    from penstock.services.cli.rule_reports import print_decisions, read_events, span, time
    from penstock.triggers.simulation import simulate as decide

    found = _loaded(_paths(rules))
    end = time(until, "--until") if until else None
    run_time = span(assume_run_time, "--assume-run-time") if assume_run_time else None
    decisions = decide((each.rule for each in found.rules), read_events(events), end, assume_run_time=run_time)
    print_decisions(decisions, as_table=format_ is DecisionFormat.table)


@app.command()
def explain(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="its name")],
    rules: Paths = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Tell the way of an event through a rule, stage by stage."""
    from penstock.services.cli.rule_reports import print_pipelines

    found = _loaded(_paths(rules))
    print_pipelines([each for each in found.rules if each.name == rule], rule, found.rules, as_json=as_json)


@app.command()
def export_schema() -> None:
    """Print the JSON Schema of rule files, for editors."""
    from penstock.automations import export_schema as schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))


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


def _paths(given: Sequence[Path] | None) -> list[Path]:
    """The rule files that are meant.  Raises CommandError for one that is not there."""
    from penstock.services.cli.client import CommandError
    from penstock.services.project import load_settings

    paths = list(given) if given else [Path(each) for each in load_settings().rules]
    for path in paths:
        if not path.exists():
            raise CommandError(f"{path}: there is no such directory or file")
    return paths


def _loaded(paths: Sequence[Path]) -> RuleSet:
    """Rules without errors; else they are told, and the command ends."""
    from penstock.automations import load

    found = load(paths)
    if found.errors:
        _print(found.errors)
        raise typer.Exit(1)
    return found


def _check_live(paths: Sequence[Path], *, as_json: bool) -> None:
    """Let the API check: it knows the flows, and what is in force."""
    from penstock.automations import Problem
    from penstock.services.cli.client import ApiRefusedError, CommandError, connect, read_folder

    if len(paths) != 1:
        raise CommandError("--live checks one directory, since what is in force is replaced as a whole")
    refused = False
    try:
        found = connect().post("rules", {"files": read_folder(paths[0]), "dry_run": True})
    except ApiRefusedError as error:
        if "problems" not in error.problem:
            raise
        found, refused = error.problem, True
    problems = [_placed(Problem(**problem), paths[0]) for problem in found["problems"]]
    _tell(problems, as_json=as_json)
    if refused:
        raise typer.Exit(1)
    if not as_json:
        print(_verdict(len(problems)))


def _tell(problems: Sequence[Problem], *, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print(json.dumps([asdict(problem) for problem in problems], indent=2, ensure_ascii=False))
    else:
        _print(problems)


def _schemas(modules: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """The parameters of flows, and of deployments of penstock.yaml, by every name that a rule may use.

    Raises CommandError for one that is broken.
    """
    from penstock.automations.deployments import open_schema
    from penstock.flows.load import load_flows
    from penstock.services.cli.client import CommandError
    from penstock.services.offers import find
    from penstock.services.project import FILE, read_file

    library = load_flows(modules)
    if library.problems:
        raise CommandError("; ".join(str(problem) for problem in library.problems))
    found = {}
    for name, loaded in library.flows.items():
        found[name] = found[f"{loaded.module}:{name}"] = loaded.schema
    for each in read_file(Path(FILE)).deployments if Path(FILE).exists() else ():
        of = find(library, each.flow)
        if of is not None:  # else it is of a module that was not named
            found[each.name] = open_schema(of.schema, each.parameters)
    return found


def _event_schemas(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The JSON Schema of `data` by event type.  Raises CommandError."""
    from penstock.services.cli.client import CommandError

    if not folder.is_dir():
        raise CommandError(f"{folder}: there is no such directory")
    found: dict[str, Mapping[str, Any]] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            schema = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CommandError(f"{file}: is no JSON Schema: {error}") from None
        if not isinstance(schema, dict):
            raise CommandError(f"{file}: is no JSON Schema: it must be an object")
        found[file.stem] = schema
    return found


def _placed(problem: Problem, folder: Path) -> Problem:
    """With the path as the user gave it, so that terminals and editors can jump there."""
    from dataclasses import replace

    return replace(problem, file=str(folder / problem.file)) if folder.is_dir() else replace(problem, file=str(folder))


def _print(problems: Sequence[Problem]) -> None:
    from penstock.services.cli.output import plain

    for problem in problems:
        print(plain(str(problem)), file=sys.stderr)
