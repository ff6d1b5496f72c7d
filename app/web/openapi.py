"""
Write the OpenAPI document from the endpoints themselves.

Nothing is described twice: paths, bodies, answers, refusals and tokens are read
from the same declarations that were mounted.

Source:
    OpenAPI 3.1.1; msgspec writes the schemas (JSON Schema 2020-12).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import web

from app.web.access import Access
from app.web.body import JSON, MSGPACK
from app.web.catalogue import PROBLEMS
from app.web.endpoint import Endpoint

Json: TypeAlias = dict[str, Any]

_PARAMETER: Final = re.compile(r"\{(\w+)(?::[^{}]*)?\}")
_REFERENCE: Final = "#/components/schemas/"
_STATUS_TEXT: Final = {200: "Done.", 201: "Made.", 202: "Accepted.", 204: "Done, nothing to say."}
_SECURITY: Final[Mapping[Access, str]] = {
    Access.SHOPPER: "shopper",
    Access.VIEWER: "admin",
    Access.OPERATOR: "admin",
    Access.MERCHANT: "admin",
}
_SECURITY_SCHEMES: Final[Json] = {
    "shopper": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "admin": {"type": "http", "scheme": "bearer"},
}
_EVERYWHERE: Final = ("bad_request", "internal_error")
_WITH_BODY: Final = (
    "request_timeout",
    "body_too_large",
    "unsupported_media_type",
    "validation_failed",
)


class FieldError(msgspec.Struct):
    """One field at fault: its JSON path and what is wrong with it."""

    path: str
    message: str


class Problem(msgspec.Struct):
    """A refusal (RFC 9457); more members by code."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    retryable: bool
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET
    errors: list[FieldError] | msgspec.UnsetType = msgspec.UNSET


def document(endpoints: Sequence[Endpoint], *, title: str, version: str) -> Json:
    """
    Write the document of these endpoints.

    Args:
        endpoints: of one listener, in the order they should be read.
        title: of the service.
        version: of the service.
    """
    schemas, components = _schemas(endpoints)
    paths: Json = {}
    for endpoint in endpoints:
        path = _PARAMETER.sub(r"{\1}", endpoint.path)
        operation = _operation(endpoint, schemas, components)
        paths.setdefault(path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY_SCHEMES},
    }


def openapi_endpoint(endpoints: Sequence[Endpoint], *, title: str, version: str) -> Endpoint:
    """Make GET /openapi.json for these endpoints; the document is written once."""
    written = msgspec.json.encode(document(endpoints, title=title, version=version))

    async def openapi(request: web.Request) -> web.Response:  # noqa: ARG001  the same for everybody
        return web.Response(body=written, headers={"Content-Type": JSON})

    return Endpoint(
        method="GET",
        path="/openapi.json",
        handler=openapi,
        summary="Describe this interface.",
        access=Access.PUBLIC,
        answers={200: None},
    )


def refusals(endpoint: Endpoint) -> tuple[str, ...]:
    """List every code the endpoint can answer, its own and those of its declarations."""
    listed = [*_EVERYWHERE, *endpoint.refusals]
    if endpoint.body is not None:
        listed += _WITH_BODY
    if endpoint.query is not None:
        listed.append("validation_failed")
    if endpoint.idempotent_key:
        listed += ["idempotency_key_missing", "idempotency_key_invalid"]
    if endpoint.access in _SECURITY:
        listed.append("unauthorized")
    if _SECURITY.get(endpoint.access) == "admin":
        listed.append("forbidden")
    return tuple(code for code in PROBLEMS if code in listed)


def _schemas(endpoints: Iterable[Endpoint]) -> tuple[dict[Any, Json], Json]:
    """Return the schema of every type that occurs, and the components they refer to."""
    types: list[Any] = [Problem]
    for endpoint in endpoints:
        declared = [endpoint.body, endpoint.query, *endpoint.answers.values()]
        types += [one for one in declared if one is not None and one not in types]
    written, components = msgspec.json.schema_components(
        types,
        ref_template=_REFERENCE + "{name}",
    )
    return dict(zip(types, written, strict=True)), dict(components)


def _operation(endpoint: Endpoint, schemas: Mapping[Any, Json], components: Json) -> Json:
    operation: Json = {
        "summary": endpoint.summary,
        "operationId": _operation_id(endpoint),
        "parameters": _parameters(endpoint, schemas, components),
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "content": _content(endpoint, schemas[endpoint.body]),
            # An absent body reads as {}: needed only where a field has no default.
            "required": bool(_resolved(schemas[endpoint.body], components).get("required")),
        }
    scheme = _SECURITY.get(endpoint.access)
    if scheme is not None:
        operation["security"] = [{scheme: []}]
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", _PARAMETER.sub(r"by_\1", endpoint.path))
    return "_".join([endpoint.method.lower(), *words])


def _parameters(endpoint: Endpoint, schemas: Mapping[Any, Json], components: Json) -> list[Json]:
    text = {"type": "string"}
    listed = [
        {"name": name, "in": "path", "required": True, "schema": text}
        for name in _PARAMETER.findall(endpoint.path)
    ]
    if endpoint.query is not None:
        struct = _resolved(schemas[endpoint.query], components)
        needed = struct.get("required", [])
        for name, schema in struct.get("properties", {}).items():
            is_needed = name in needed
            listed.append({"name": name, "in": "query", "required": is_needed, "schema": schema})
    if endpoint.idempotent_key:
        key = {"type": "string", "pattern": '^("[0-9A-Za-z_-]{16,64}"|[0-9A-Za-z_-]{16,64})$'}
        listed.append(
            {"name": "Idempotency-Key", "in": "header", "required": True, "schema": key},
        )
    if endpoint.prefer_wait:
        listed.append({"name": "Prefer", "in": "header", "required": False, "schema": text})
    return listed


def _resolved(schema: Json, components: Json) -> Json:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Json = components[reference.removeprefix(_REFERENCE)]
    return found


def _responses(endpoint: Endpoint, schemas: Mapping[Any, Json]) -> Json:
    answers: Json = {}
    for status, type_ in endpoint.answers.items():
        answer: Json = {"description": _STATUS_TEXT.get(status, "Answered.")}
        if type_ is not None:
            answer["content"] = _content(endpoint, schemas[type_])
        answers[str(status)] = answer
    for code in refusals(endpoint):
        kind = PROBLEMS[code]
        answer = answers.setdefault(str(kind.status), {"description": ""})
        answer["description"] = f"{answer['description']} `{code}`: {kind.title.english}.".strip()
        content = answer.setdefault("content", {})
        content["application/problem+json"] = {"schema": schemas[Problem]}
    return answers


def _content(endpoint: Endpoint, schema: Json) -> Json:
    media = [JSON, MSGPACK] if endpoint.speaks_msgpack else [JSON]
    return {name: {"schema": schema} for name in media}
