"""The interface as the OpenAPI documents tell it: routes, schemas, and what keeps to them."""

import math
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple

from app.cli.openapi import describe

DOCUMENTS: Final = {
    "public": describe(is_admin=False),
    "admin": describe(is_admin=True),
}
_JSON: Final = "application/json"
_REFERENCE: Final = "#/components/schemas/"
_TYPES: Final = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


class Route(NamedTuple):
    """One operation of a document; `listener` is public or admin."""

    listener: str
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def operation(self) -> dict[str, Any]:
        return DOCUMENTS[self.listener]["paths"][self.path][self.method.lower()]

    @property
    def access(self) -> str:
        """Tell which kind of token it wants: shopper, admin, or none."""
        schemes = self.operation.get("security", [{"": []}])
        return next(iter(schemes[0]))

    @property
    def body(self) -> dict[str, Any] | None:
        """Give the schema of the JSON body."""
        told = self.operation.get("requestBody")
        return None if told is None else self.resolve(told["content"][_JSON]["schema"])

    @property
    def wants_key(self) -> bool:
        return "Idempotency-Key" in self.parameters("header")

    def parameters(self, place: str) -> dict[str, dict[str, Any]]:
        """Give the schemas of the parameters in `path`, `query` or `header`, by name."""
        listed = self.operation["parameters"]
        return {one["name"]: one["schema"] for one in listed if one["in"] == place}

    def at(self, thing: str) -> str:
        """Write the path with `thing` in the place of every parameter."""
        return re.sub(r"\{\w+\}", lambda _: thing, self.path)

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        reference = schema.get("$ref")
        if reference is None:
            return schema
        return DOCUMENTS[self.listener]["components"]["schemas"][reference.removeprefix(_REFERENCE)]

    def faults_of_answer(self, status: int, media: str, body: Any) -> list[str]:
        """Say what of an answer the document does not tell."""
        told = self.operation["responses"].get(str(status))
        if told is None:
            return [f"{status} is not documented"]
        content = told.get("content", {})
        if media not in content:
            return [] if _JSON not in content else [f"{status} as {media} is not documented"]
        faults = list(self.faults(content[media]["schema"], body))
        if status >= 400 and f"`{body['code']}`" not in told["description"]:
            faults.append(f"{body['code']} is not documented with {status}")
        return faults

    def faults(self, schema: dict[str, Any], value: Any, at: str = "$") -> Iterator[str]:
        """Say where a value is not what a schema tells; as much of JSON Schema as we write."""
        schema = self.resolve(schema)
        if "anyOf" in schema:
            if all(list(self.faults(one, value, at)) for one in schema["anyOf"]):
                yield f"{at}: {value!r} is none of what it may be"
            return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{at}: {value!r} is not one of {schema['enum']}"
        if "type" in schema and not _TYPES[schema["type"]](value):
            yield f"{at}: {value!r} is no {schema['type']}"
            return
        yield from _faults_of_number(schema, value, at)
        yield from _faults_of_text(schema, value, at)
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.faults(schema.get("items", {}), item, f"{at}[{index}]")
        if isinstance(value, dict):
            yield from self._faults_of_object(schema, value, at)

    def _faults_of_object(self, schema: dict[str, Any], value: Any, at: str) -> Iterator[str]:
        properties = schema.get("properties", {})
        yield from (
            f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value
        )
        others = schema.get("additionalProperties")
        # JSON Schema lets strangers in; we do so for problems, which have members by code.
        is_open = "properties" not in schema or schema.get("title") == "Problem"
        for name, item in value.items():
            if name in properties:
                yield from self.faults(properties[name], item, f"{at}.{name}")
            elif isinstance(others, dict):
                yield from self.faults(others, item, f"{at}.{name}")
            elif not is_open:
                yield f"{at}.{name} is unknown"


def _faults_of_number(schema: dict[str, Any], value: Any, at: str) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
        yield f"{at}: {value} is out of bounds"


def _faults_of_text(schema: dict[str, Any], value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, str):
        return
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
        yield f"{at}: {len(value)} characters"
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        yield f"{at}: {value!r} is unlike {schema['pattern']}"
    if "\x00" in value:
        yield f"{at}: U+0000, which no store holds"
    if schema.get("format") == "date-time" and not _is_instant(value):
        yield f"{at}: {value!r} is no instant with a zone"


def _is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


@cache
def routes() -> tuple[Route, ...]:
    """List every documented route."""
    return tuple(
        Route(listener, method.upper(), path)
        for listener, document in DOCUMENTS.items()
        for path, operations in document["paths"].items()
        for method in operations
    )
