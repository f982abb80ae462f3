"""The parameters of a flow, from its signature: validation and JSON Schema by pydantic."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from penstock.flows.errors import FlowDefinitionError, ParameterError

_CONFIG = ConfigDict(
    extra="forbid",
    validate_by_alias=True,
    validate_by_name=False,
    field_title_generator=lambda _, field: (field.alias or "").replace("_", " ").strip().capitalize(),
)


class Parameters:
    """What a flow takes. The model is built at first use, when the types that annotations name exist."""

    def __init__(self, flow: str, fn: Callable[..., Any], signature: inspect.Signature) -> None:
        self._flow, self._fn, self._signature = flow, fn, signature
        for parameter in signature.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise FlowDefinitionError(f"flow {flow!r} takes {parameter}; name its parameters, a schema shows them")

    def validate(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value: converted, defaults filled in.  Raises ParameterError naming each problem."""
        try:
            model = self._model.model_validate(dict(given))
        except ValidationError as error:
            raise ParameterError(self._flow, self._problems(error)) from None
        return {field.alias or name: getattr(model, name) for name, field in self._model.model_fields.items()}

    def problems(self, given: Mapping[str, Any], *, complete: bool) -> list[str]:
        """What is wrong with some of the parameters; `complete`: with all of them, so that none may be missing."""
        try:
            self._model.model_validate(dict(given))
        except ValidationError as error:
            return self._problems(error, complete=complete)
        return []

    def schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of the object that `validate` takes.  Raises FlowDefinitionError."""
        try:
            return self._model.model_json_schema(by_alias=True)
        except PydanticInvalidForJsonSchema as error:
            raise FlowDefinitionError(f"flow {self._flow!r}: a parameter has no JSON Schema: {error}") from None

    def arguments(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Validated values as the function is called with them."""
        bound = self._signature.bind_partial()
        bound.arguments.update({name: values[name] for name in self._signature.parameters})
        return bound.args, bound.kwargs

    @cached_property
    def _model(self) -> type[BaseModel]:
        hints = self._hints()
        # Fields have names of their own, so that a parameter may be called `schema`, `copy` or `_id`.
        fields: dict[str, Any] = {
            f"p{at}": (hints.get(name, Any), _field(parameter))
            for at, (name, parameter) in enumerate(self._signature.parameters.items())
        }
        try:
            return create_model(self._flow, __config__=_CONFIG, **fields)
        except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
            raise FlowDefinitionError(f"flow {self._flow!r}: its parameters cannot be validated: {error}") from None

    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._fn, include_extras=True)
        except (NameError, TypeError, AttributeError) as error:
            raise FlowDefinitionError(
                f"flow {self._flow!r}: an annotation cannot be resolved ({error}); import the type at the top of the"
                " module, outside of `if TYPE_CHECKING`"
            ) from None

    def _problems(self, error: ValidationError, *, complete: bool = True) -> list[str]:
        found = error.errors(include_url=False, include_context=False)
        kept = [each for each in found if complete or each["type"] != "missing" or len(each["loc"]) > 1]
        return [self._sentence(each["type"], each["loc"], each["msg"]) for each in kept]

    def _sentence(self, kind: str, place: tuple[int | str, ...], message: str) -> str:
        path = ".".join(map(str, place))
        if kind == "missing" and len(place) == 1:
            return f"{path} is missing"
        if kind == "extra_forbidden" and len(place) == 1:
            known = ", ".join(self._signature.parameters) or "none"
            return f"{path} is no parameter of it (it takes: {known})"
        return f"{path}: {message}"


def _field(parameter: inspect.Parameter) -> Any:
    default = ... if parameter.default is parameter.empty else parameter.default
    return Field(default, alias=parameter.name)
