"""Automations: rule files, what they mean, and what follows from a decision. Pure: no sockets, no SQL, no clock.

`load` reads rule files into a `RuleSet`; `start` and `advance` lead a decision through the steps of its rule; `decide`
is the one function that decides approvals. Facts and commands of firings are in `penstock.automations.facts`; users,
channels and the like in `penstock.automations.resources`.
"""

from penstock.automations.actions import ApproveStep, EmitStep, NotifyStep, RetryPolicy, RunStep, Step
from penstock.automations.approval import Approval, Outcome, Vote, decide, expire, may_decide, refresh
from penstock.automations.conditions import CelCondition, ConditionError, compile_condition
from penstock.automations.decision import decision_id, when_digest
from penstock.automations.durations import Rate, format_duration, parse_duration, parse_rate
from penstock.automations.examples import Outcome as ExampleOutcome
from penstock.automations.examples import run_examples
from penstock.automations.files import RuleSet, load, load_texts, read_texts
from penstock.automations.firing import Firing, advance, start
from penstock.automations.pipeline import Stage, pipeline
from penstock.automations.problems import Problem, RuleFilesError
from penstock.automations.rendering import HOP_BUDGET
from penstock.automations.rules import DEFAULT_NAMESPACE, Automation
from penstock.automations.schema import export_schema
from penstock.automations.secrets import UnknownSecretError, environment_lookup, mask, reveal, revealed_names
from penstock.automations.templates import RenderError, Template, TemplateError, render_json

__all__ = [
    "DEFAULT_NAMESPACE",
    "HOP_BUDGET",
    "Approval",
    "ApproveStep",
    "Automation",
    "CelCondition",
    "ConditionError",
    "EmitStep",
    "ExampleOutcome",
    "Firing",
    "NotifyStep",
    "Outcome",
    "Problem",
    "Rate",
    "RenderError",
    "RetryPolicy",
    "RuleFilesError",
    "RuleSet",
    "RunStep",
    "Stage",
    "Step",
    "Template",
    "TemplateError",
    "UnknownSecretError",
    "Vote",
    "advance",
    "compile_condition",
    "decide",
    "decision_id",
    "environment_lookup",
    "expire",
    "export_schema",
    "format_duration",
    "load",
    "load_texts",
    "mask",
    "may_decide",
    "parse_duration",
    "parse_rate",
    "pipeline",
    "read_texts",
    "refresh",
    "render_json",
    "reveal",
    "revealed_names",
    "run_examples",
    "start",
    "when_digest",
]
