"""The shape of rule files, as pydantic checks it and as the exported JSON Schema tells it to editors.

Every class lists under `later` the keys of the design that this version does not honour yet: they are refused by name
rather than ignored. `when` has its own module, when.py.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from penstock.automations.kinds import (
    HOUR,
    MINUTE,
    SECOND,
    Approver,
    Approvers,
    Duration,
    Identifier,
    Keys,
    Name,
    Names,
    OneOrMore,
    Person,
    PositiveDuration,
    RateLimit,
    ResourceName,
    Text,
    listing,
)
from penstock.automations.when import When

__all__ = [  # the kinds, too: they belong to the shape
    "HOUR", "MINUTE", "SECOND", "Approver", "Duration", "Identifier", "Keys", "Name", "Names", "Person",
    "PositiveDuration", "RateLimit", "ResourceName", "Text", "When", "listing",
]  # fmt: skip


class Retry(Keys):
    """How often a step is tried, and the pauses between: `delay`, then `backoff` times as long, up to `max_delay`."""

    attempts: Annotated[int, Field(ge=1, le=100)] = Field(5, description="Tries in all; 1 is none again.")
    delay: Duration = Field(1 * SECOND, description="Pause before the second try.")
    backoff: Annotated[float, Field(ge=1, le=10, strict=False)] = Field(
        2.0, description="Each pause is so many times longer."
    )
    max_delay: Duration = Field(5 * MINUTE, description="No pause is longer.")


class Step(Keys):
    """Keys of every action."""

    name: Identifier | None = Field(None, description="Later steps find the result as `steps.NAME`.")
    if_: Text | None = Field(None, alias="if", description="CEL; where it does not hold, the step is passed over.")


class Run(Step):
    """Launch a run of a flow."""

    run: Text = Field(description="A deployment, or module:flow.")
    with_: dict[str, Any] = Field({}, alias="with", description="Its parameters; templates keep their JSON kind.")
    pool: Name | None = Field(None, description="The worker pool; none: that of the deployment.")
    queue: Name = Field("default", description="The queue of the pool; a worker serves all of them, or some.")
    priority: int = Field(0, ge=-1000, le=1000, description="Higher goes first; a point is worth a minute of waiting.")
    wait: Literal["completed"] | None = Field(None, description="`completed`: go on when the run has ended.")
    retry: Retry = Field(Retry(), description="Used when the run is not accepted.")
    timeout: PositiveDuration | None = Field(None, description="A step that takes longer has failed.")


class Notify(Step):
    """Send a message to a channel."""

    notify: Text = Field(description="The name of a channel.")
    text: Text = Field(description="What to say.")
    title: Text | None = Field(None, description="A heading, where the channel has such.")
    retry: Retry = Field(Retry(), description="Used when delivery fails for the time being.")
    timeout: PositiveDuration | None = Field(None, description="A step that takes longer has failed.")


class ApproveSpec(Keys):
    """What is asked, of whom, until when."""

    later = frozenset({"form", "remind", "reminders", "escalate", "escalation", "totp", "step_up"})

    ask: Text = Field(description="The question.")
    approvers: Approvers = Field(description="Who may decide: user/NAME or group/NAME.")
    needs: Annotated[int, Field(ge=1, le=100)] = Field(1, description="How many of them must approve.")
    timeout: PositiveDuration = Field(24 * HOUR, description="Until when.")
    on_timeout: Literal["reject", "approve"] = Field("reject", description="What holds when nobody decided in time.")
    four_eyes: bool = Field(True, description="The person who started it may not decide.")


class Approve(Step):
    """Pause until people have decided."""

    approve: ApproveSpec


class EmitSpec(Keys):
    """The event to send."""

    type: Text = Field(description="Its type; `penstock.*` is reserved.")
    subject: Text | None = Field(None, description="What it is about.")
    source: Text | None = Field(None, description="Who says so; none: /penstock/automations/NAMESPACE/NAME.")
    data: Any = Field(None, description="Any JSON; templates keep their JSON kind.")


class Emit(Step):
    """Send an event."""

    emit: EmitSpec


ACTIONS: dict[str, type[Step]] = {"run": Run, "notify": Notify, "approve": Approve, "emit": Emit}
LATER_ACTIONS = frozenset(
    ["webhook", "cancel", "suspend", "resume", "pause", "unpause", "set", "parallel", "choose", "each"]
)


def _action_tag(value: Any) -> str | None:
    found = [key for key in ACTIONS if isinstance(value, dict) and key in value]
    return f"«{found[0]}»" if len(found) == 1 else None


Action = Annotated[
    Annotated[Run, Tag("«run»")]
    | Annotated[Notify, Tag("«notify»")]
    | Annotated[Approve, Tag("«approve»")]
    | Annotated[Emit, Tag("«emit»")],
    Discriminator(_action_tag),
]
Actions = Annotated[tuple[Action, ...], BeforeValidator(listing)]


class Given(BaseModel):
    """One event of a test: a CloudEvent with the offset `at` at which it happens, and `recorded` for its arrival."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    type: Text = Field(description="The type of the event.")
    at: Text = Field("0s", description="When it happens: an offset, or a time.")
    recorded: Text | None = Field(None, description="When it arrives; none: when it happens.")


class Expectation(Keys):
    """One decision that a test expects."""

    fires: Name | None = Field(None, description="The rule that fires.")
    resolves: Name | None = Field(None, description="The rule that resolves.")
    suppresses: Name | None = Field(None, description="The rule whose firing is suppressed.")
    at: Text | None = Field(None, description="When: an offset, or a time; none: at any time.")
    key: Any = Field(None, description="The key; not said: any.")
    events: Names | None = Field(None, description="The ids of the events that took part; none: any.")
    reason: str | None = Field(None, description="How its reason begins.")


class TestCase(Keys):
    """An example of what a rule does, for `penstock rules test`."""

    __test__: ClassVar[bool] = False  # for pytest, which collects classes by this name

    name: Text = Field(description="What it shows.")
    given: Annotated[tuple[Given, ...], BeforeValidator(listing)] = Field(
        description="The events, in order of arrival."
    )
    expect: Annotated[tuple[Expectation, ...], BeforeValidator(listing)] = Field(
        description="All decisions that fire and resolve, and those suppressed where one is listed."
    )
    until: Text | None = Field(None, description="Where the clock stops; none: at the last event or expectation.")


Mode = Literal["single", "queued", "restart", "parallel", "keep_latest"]


class DedupeModel(Keys):
    """Drop a matching event whose like was let through a short while before."""

    by: OneOrMore = Field(description="What makes two events alike: a path, or a list of paths.")
    for_: PositiveDuration = Field(alias="for", description="For how long.")


class DebounceModel(Keys):
    """Wait until it is quiet: one firing once `quiet` has passed without another of its key."""

    quiet: PositiveDuration = Field(description="How long nothing must come.")
    max: PositiveDuration | None = Field(None, description="The longest wait after the first; none: no limit.")
    keep: Literal["first", "last", "all"] = Field("last", description="Whose `trigger.value` and `trigger.from` count.")


def _debounce(value: Any) -> Any:
    return {"quiet": value} if isinstance(value, str | int | float) and not isinstance(value, bool) else value


Debounce = Annotated[
    DebounceModel,
    BeforeValidator(_debounce, json_schema_input_type=DebounceModel | PositiveDuration),
]


class AutomationModel(Keys):
    """One rule."""

    name: Name = Field(description="Unique in its namespace; letters, digits, dashes.")
    description: str = Field("", description="For people.")
    tags: Names = Field((), description="For searching.")
    enabled: bool = Field(True, description="`false`: windows go on being filled, nothing is decided.")
    shadow: bool = Field(False, description="`true`: decides and records, and acts on nothing.")
    when: When = Field(description="What it waits for.")
    if_: Text | None = Field(
        None, alias="if", description="CEL over event, events, trigger, vars; where it does not hold, nothing fires."
    )
    dedupe: DedupeModel | None = Field(None, description="Drop events that repeat one let through before.")
    debounce: Debounce | None = Field(None, description="Fire once it is quiet; a duration, or quiet, max and keep.")
    cooldown: PositiveDuration | None = Field(None, description="Per key: so long nothing fires after a firing.")
    limit: RateLimit = Field(None, description="Per key: at most so many firings in any such span; `10/1h`.")
    storm: RateLimit = Field(
        None, description="More firings of the rule in such a span become one digest; live only. `100/1m`."
    )
    mode: Mode = Field("parallel", description="What a firing does while earlier ones of its key have not ended.")
    then: Actions = Field(min_length=1, description="What to do, in order.")
    on_resolve: Actions = Field((), description="What to do when it resolves: `metric`, `absent` without `after`.")
    on_error: Actions = Field((), description="What to do when a step failed; none: the firing is dead-lettered.")
    tests: Annotated[tuple[TestCase, ...], BeforeValidator(listing)] = Field((), description="Examples.")


class Defaults(Keys):
    """What the rules of this file take where they say nothing themselves."""

    tags: Names | None = Field(None, description="For searching.")
    enabled: bool | None = Field(None, description="Whether they decide.")
    shadow: bool | None = Field(None, description="Whether they only record.")
    lateness: Duration | None = Field(None, description="How long after its time an event may arrive and still count.")
    grace: Duration | None = Field(None, description="How long `absent` waits beyond its deadline.")
    order: Literal["arrival", "event_time"] | None = Field(
        None, description="Whether events are taken as they arrive or by their time."
    )
    cooldown: PositiveDuration | None = Field(None, description="Per key: so long nothing fires after a firing.")
    limit: RateLimit = Field(None, description="Per key: at most so many firings in any such span.")
    storm: RateLimit = Field(None, description="More firings of one rule in such a span become one digest.")
    mode: Mode | None = Field(None, description="What a firing does while earlier ones of its key have not ended.")
    retry: Retry | None = Field(None, description="How often a step is tried.")
    on_error: Actions | None = Field(None, description="What to do when a step failed.")
