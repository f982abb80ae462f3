"""Automations: rule files, what they mean, and what follows from a decision. Pure: no sockets, no SQL, no clock."""

from penstock.automations.actions import ApproveStep, EmitStep, NotifyStep, RetryPolicy, RunStep, Step
from penstock.automations.decision import decision_id, when_digest
from penstock.automations.durations import Rate, format_duration, parse_duration, parse_rate
from penstock.automations.files import RuleSet, load, load_texts, read_texts
from penstock.automations.problems import Problem, RuleFilesError
from penstock.automations.rules import DEFAULT_NAMESPACE, Automation
from penstock.automations.secrets import UnknownSecretError, environment_lookup, mask, reveal
from penstock.automations.templates import RenderError, Template, TemplateError

__all__ = [
    "DEFAULT_NAMESPACE",
    "ApproveStep",
    "Automation",
    "EmitStep",
    "NotifyStep",
    "Problem",
    "Rate",
    "RenderError",
    "RetryPolicy",
    "RuleFilesError",
    "RuleSet",
    "RunStep",
    "Step",
    "Template",
    "TemplateError",
    "UnknownSecretError",
    "decision_id",
    "environment_lookup",
    "format_duration",
    "load",
    "load_texts",
    "mask",
    "parse_duration",
    "parse_rate",
    "read_texts",
    "reveal",
    "when_digest",
]
