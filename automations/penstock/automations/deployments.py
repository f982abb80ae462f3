"""`penstock.yaml`: where a project's rules and flows are, and its deployments; read whole, as rule files are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from penstock.automations.actions import fits, kinds_of
from penstock.automations.cron import check_cron
from penstock.automations.documents import Document, read
from penstock.automations.kinds import Duration, Keys, Name, Names, listing
from penstock.automations.messages import show, validate
from penstock.automations.pools import Pool
from penstock.automations.problems import Path, Problem, did_you_mean
from penstock.automations.recurrence import check_rrule
from penstock.automations.when import check_timezone

TIMES = ("cron", "every", "rrule")
_FLOW = r"^([A-Za-z_][\w.]*:)?[A-Za-z0-9_][A-Za-z0-9_-]*$"


def _one_or_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Paths = Annotated[
    Names,
    BeforeValidator(_one_or_list),
    WithJsonSchema({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class ConcurrencyModel(Keys):
    """How many runs of a deployment there may be at once, and what becomes of one more."""

    limit: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="Runs that have begun and not ended.")
    when_full: Literal["queue", "cancel_new", "replace"] = Field(
        "queue", description="Wait in order; cancel the new one; or cancel the oldest one for it."
    )


class DeploymentScheduleModel(Keys):
    """When a deployment runs by itself: exactly one of `cron`, `every` and `rrule`."""

    cron: Annotated[str, AfterValidator(check_cron)] | None = Field(
        None, description="Five fields: minute, hour, day, month, weekday."
    )
    every: Annotated[Duration, Field(ge=100_000)] | None = Field(
        None, description="An interval, from when it was deployed."
    )
    rrule: Annotated[str, AfterValidator(check_rrule)] | None = Field(None, description="A rule of RFC 5545.")
    timezone: Annotated[str, AfterValidator(check_timezone)] = Field("UTC", description="Whose clocks are meant.")
    parameters: dict[str, Any] = Field({}, description="Over those of the deployment.")


class DeploymentModel(Keys):
    """A flow as it is run under a name."""

    name: Name = Field(description="Unique in its namespace; letters, digits, dashes.")
    flow: Annotated[str, Field(pattern=_FLOW)] = Field(description="`module:flow`, or the flow's name.")
    pool: Name = Field("default", description="Whose workers run it.")
    parameters: dict[str, Any] = Field({}, description="What a run gets unless it says otherwise.")
    limits: Names = Field((), description="Names of limits that each run passes first.")
    tags: Names = Field((), description="To find its runs by.")
    paused: bool = Field(False, description="`true`: its schedules start no run.")
    concurrency: ConcurrencyModel | None = Field(None, description="How many runs at once; none: any number.")
    schedules: Annotated[tuple[DeploymentScheduleModel, ...], BeforeValidator(listing)] = Field(
        (), description="When it runs by itself."
    )


class ProjectModel(Keys):
    """`penstock.yaml`."""

    namespace: Name | None = Field(None, description="Where the names of this project belong.")
    rules: Paths | None = Field(None, description="Directories of rule files.")
    flows: Paths | None = Field(None, description="Modules or .py files that hold flows.")
    deployments: Annotated[tuple[DeploymentModel, ...], BeforeValidator(listing)] = Field(
        (), description="Flows as they are run under a name."
    )
    pools: Annotated[tuple[Pool, ...], BeforeValidator(listing)] = Field(
        (), description="How the runs of each pool are isolated, and what they may use."
    )


def read_project(file: str, text: str) -> tuple[ProjectModel | None, Document | None, list[Problem]]:
    """What `penstock.yaml` says (None where it cannot be used), its places, and what is wrong with it."""
    document, problems = read(file, text)
    if document is None or problems:
        return None, document, problems
    if document.value is None:
        return ProjectModel(), document, []
    if not isinstance(document.value, dict):
        known = ", ".join(ProjectModel.model_fields)
        message = f"it is a mapping of {known}, not {show(document.value)}"
        return None, document, [document.problem((), message, "begin with e.g. `rules: [rules/]`")]
    found, problems = validate(ProjectModel, document.value, document, ())
    if found is None:
        return None, document, problems
    problems = [
        document.problem(path, message, hint)
        for path, message, hint in problems_of(found.deployments, ("deployments",))
    ]
    return (None if problems else found), document, problems


def problems_of(deployments: Iterable[DeploymentModel], path: Path = ()) -> Iterator[tuple[Path, str, str]]:
    """What a single value cannot show to be wrong: (where, what, remedy)."""
    seen: set[str] = set()
    for at, each in enumerate(deployments):
        if each.name in seen:
            yield (*path, at, "name"), f"deployment `{each.name}` is defined twice", "rename one"
        seen.add(each.name)
        for number, schedule in enumerate(each.schedules):
            place: Path = (*path, at, "schedules", number)
            said = [name for name in TIMES if getattr(schedule, name) is not None]
            if len(said) != 1:
                both = " and ".join(f"`{name}`" for name in said) if said else "no time"
                yield place, f"a schedule of `{each.name}` has {both}", "write exactly one of cron, every, rrule"
            elif schedule in each.schedules[:number]:
                yield place, f"`{each.name}` has the same schedule twice", "remove one, or give it other parameters"


def parameter_problems(schema: Mapping[str, Any], given: Mapping[str, Any], *, complete: bool) -> Iterator[str]:
    """How parameters do not fit a flow's JSON Schema, as far as it says so outright.

    complete: nothing is added to them, so that a missing one is a problem.
    """
    known = schema.get("properties", {})
    for name, value in given.items():
        if name not in known and not schema.get("additionalProperties", False):
            hint = did_you_mean(name, known)
            yield f"it has no parameter `{name}`" + (f" ({hint})" if hint else "")
        elif name in known and not fits(value, known[name]):
            yield f"parameter `{name}` must be {kinds_of(known[name])}, not {show(value)}"
    for name in schema.get("required", ()) if complete else ():
        if name not in given:
            yield f"parameter `{name}` is missing"


def open_schema(schema: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of what is left to say: parameters with a default are required no more."""
    return {**schema, "required": [name for name in schema.get("required", ()) if name not in defaults]}
