"""The shape of rule files, as pydantic checks it and as the exported JSON Schema tells it to editors.

Every class lists under `later` the keys of the design that this version does not honour yet: they are refused by name
rather than ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, PlainSerializer, Tag, WithJsonSchema

from penstock.automations.durations import Rate, format_duration, parse_duration, parse_rate

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

_DURATION_SCHEMA = {"type": "string", "pattern": r"^(\d+(ms|us|[dhms]))+$", "examples": ["30s", "5m", "1h30m"]}
_RATE_SCHEMA = {
    "type": "string",
    "pattern": r"^(\d+/(\d+(ms|us|[dhms]))+|unlimited)$",
    "examples": ["10/1s", "unlimited"],
}

Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
]
PositiveDuration = Annotated[Duration, Field(gt=0)]
RateLimit = Annotated[
    Rate | None,
    BeforeValidator(parse_rate),
    PlainSerializer(lambda rate: str(rate) if rate else "unlimited", return_type=str),
    WithJsonSchema(_RATE_SCHEMA),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$", max_length=100)]
ResourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=100)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
Text = Annotated[str, Field(min_length=1)]
Person = Annotated[str, Field(pattern=r"^user/.+$")]
Approver = Annotated[str, Field(pattern=r"^(user|group)/.+$")]


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def listing(value: Any) -> Any:
    """A tuple is what strict pydantic takes for a tuple; YAML has lists."""
    return tuple(value) if isinstance(value, list) else value


OneOrMore = Annotated[
    tuple[Text, ...],
    Field(min_length=1),
    BeforeValidator(listing),
    BeforeValidator(_one_or_more),
    WithJsonSchema({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
Names = Annotated[
    tuple[Text, ...], BeforeValidator(listing), WithJsonSchema({"type": "array", "items": {"type": "string"}})
]
Approvers = Annotated[
    tuple[Approver, ...],
    Field(min_length=1),
    BeforeValidator(listing),
    WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": "^(user|group)/.+$"}, "minItems": 1}),
]


class Keys(BaseModel):
    """A mapping of a rule file: unknown keys are refused, kinds are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)
    later: ClassVar[frozenset[str]] = frozenset()


class When(Keys):
    """When a rule fires: at the `count`-th matching event inside a sliding window of `within`."""

    later = frozenset(
        {"absent", "after", "sequence", "all", "any", "at_least", "of", "metric", "changed", "from", "to", "for"}
        | {"schedule", "order", "grace"}
    )

    event: OneOrMore = Field(description="Event type, or a list of types; `*` is any run of characters.")
    where: dict[str, Any] | None = Field(None, description="An EventBridge pattern over the event.")
    per: OneOrMore | None = Field(None, description="One window per value of this path, or of these paths.")
    count: Annotated[int, Field(ge=1, le=10_000)] = Field(1, description="How many matching events it takes.")
    within: PositiveDuration | None = Field(None, description="The window; needed with `count` above 1.")
    lateness: Duration = Field(30 * SECOND, description="How long after its time an event may arrive and still count.")
    late: Literal["accept"] | None = Field(None, description="`accept`: late events fill windows that hold their time.")


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

    later = frozenset({"if"})

    name: Identifier | None = Field(None, description="Later steps find the result as `steps.NAME`.")


class Run(Step):
    """Launch a run of a flow."""

    run: Text = Field(description="A deployment, or module:flow.")
    with_: dict[str, Any] = Field({}, alias="with", description="Its parameters; templates keep their JSON kind.")
    pool: Name | None = Field(None, description="The worker pool; none: that of the deployment.")
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

    type: Text
    at: Text = "0s"
    recorded: Text | None = None


class Expectation(Keys):
    """One decision that a test expects."""

    fires: Name | None = None
    resolves: Name | None = None
    suppresses: Name | None = None
    at: Text | None = None
    key: Any = None
    events: Names | None = None
    reason: Text | None = None


class TestCase(Keys):
    """An example of what a rule does, for `penstock rules test`."""

    __test__: ClassVar[bool] = False  # for pytest, which collects classes by this name

    name: Text
    given: Annotated[tuple[Given, ...], BeforeValidator(listing)]
    expect: Annotated[tuple[Expectation, ...], BeforeValidator(listing)]
    until: Text | None = None


class AutomationModel(Keys):
    """One rule."""

    later = frozenset(["if", "cooldown", "limit", "mode", "dedupe", "debounce", "storm", "on_resolve"])

    name: Name = Field(description="Unique in its namespace; letters, digits, dashes.")
    description: str = Field("", description="For people.")
    tags: Names = Field((), description="For searching.")
    enabled: bool = Field(True, description="`false`: windows go on being filled, nothing is decided.")
    shadow: bool = Field(False, description="`true`: decides and records, and acts on nothing.")
    when: When
    then: Actions = Field(min_length=1, description="What to do, in order.")
    on_error: Actions = Field((), description="What to do when a step failed; none: the firing is dead-lettered.")
    tests: Annotated[tuple[TestCase, ...], BeforeValidator(listing)] = Field((), description="Examples.")


class Defaults(Keys):
    """What the rules of this file take where they say nothing themselves."""

    tags: Names | None = None
    enabled: bool | None = None
    shadow: bool | None = None
    lateness: Duration | None = None
    retry: Retry | None = None
    on_error: Actions | None = None
