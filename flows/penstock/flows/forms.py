"""What a person fills in for a flow: a pydantic model, a dataclass or a TypedDict, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from penstock.flows.errors import ApprovalFormError, FlowDefinitionError

T = TypeVar("T")


class Form(Generic[T]):
    """The form that a type describes.  Raises FlowDefinitionError for a type without fields, or without a schema."""

    def __init__(self, kind: type[T]) -> None:
        self._name = getattr(kind, "__qualname__", repr(kind))
        try:
            self._adapter = TypeAdapter(kind)
            self.schema: dict[str, Any] = self._adapter.json_schema()
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            reason = str(error).split("\n")[0]
            raise FlowDefinitionError(f"form={self._name}: it has no JSON Schema: {reason}") from None
        if self.schema.get("type") != "object" or "properties" not in self.schema:
            raise FlowDefinitionError(
                f"form={self._name}: give a pydantic model, a dataclass or a TypedDict; its fields are filled in"
            )

    def read(self, values: Mapping[str, Any]) -> T:
        """The values as the type has them; text is taken for numbers, dates …  Raises ApprovalFormError."""
        try:
            return self._adapter.validate_python(dict(values))
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False)
            told = "; ".join(f"{'.'.join(map(str, each['loc'])) or self._name}: {each['msg']}" for each in found)
            raise ApprovalFormError(told) from None

    def write(self, value: T) -> Any:
        """Its JSON form."""
        return self._adapter.dump_python(value, mode="json")
