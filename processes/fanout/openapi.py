"""GET /openapi.json: made from the table of operations and the very types that are decoded and encoded."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

ERRORS: Final = {
    400: "malformed: `field` names what", 401: "not signed in", 403: "this role may not", 404: "there is none",
    408: "the body did not come in time", 409: "not possible now", 413: "the body is too large", 422: "the host does not offer this op",
    426: "this is a WebSocket", 429: "too many: come back later", 500: "a mistake of ours: the log and the dead letter have it",
    503: "not reached or refused: it will not happen, ask again", 504: "outcome unknown: ask again with the same key",
}  # fmt: skip
READS: Final = (503,)  # what a question may always be answered with beside its own
GIVES: Final = (400, 408, 413, 429, 500, 503, 504)  # and what a request to the hub


class Query(NamedTuple):
    """A parameter of a query. `kind`: a type as msgspec knows it, limits included."""

    name: str
    kind: Any
    description: str


class Described(NamedTuple):
    """What the document says of one operation. `answers`: status → type, None for no body; `errors`: beside the usual ones."""

    summary: str
    answers: dict[int, Any]
    body: type[msgspec.Struct] | None = None
    query: tuple[Query, ...] = ()
    errors: tuple[int, ...] = ()
    media: str = "application/json"


class Listed(NamedTuple):
    """One operation with its place."""

    method: str
    path: str
    signed_in: bool
    described: Described


def document(operations: list[Listed], version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of the operations."""
    kinds = [kind for o in operations for kind in (o.described.body, *o.described.answers.values()) if kind is not None]
    unique = list(dict.fromkeys(kinds))
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    schema = dict(zip(unique, schemas, strict=True))
    components["Error"] = {
        "type": "object",
        "required": ["error", "message"],
        "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    }
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schema)
    return {
        "openapi": "3.1.0",
        "info": {"title": "fleethub", "version": version},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(operation: Listed, schema: dict[Any, Any]) -> dict[str, Any]:
    described, reads = operation.described, operation.method == "GET"
    names = re.findall(r"\{(\w+)\}", operation.path)
    found: dict[str, Any] = {"summary": described.summary, "operationId": _id(operation), "responses": {}}
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names]
    parameters += [{"name": q.name, "in": "query", "description": q.description, "schema": _inline(q.kind)} for q in described.query]
    if parameters:
        found["parameters"] = parameters
    if described.body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema[described.body]}}}
    for status, kind in described.answers.items():
        answer: dict[str, Any] = {"description": described.summary}
        if kind is not None:
            answer["content"] = {described.media: {"schema": schema[kind]}}
        found["responses"][str(status)] = answer
    statuses = {
        *described.errors,
        *(READS if reads else GIVES),
        *((404,) if names else ()),
        *((400,) if operation.path.startswith("/api/") else ()),
    }
    if operation.signed_in:
        found["security"] = [{"token": []}]
        statuses |= {401, 403}
        if reads:
            found["responses"]["304"] = {"description": "as it was when you got this ETag"}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status in sorted(statuses - set(described.answers)):
        found["responses"][str(status)] = {"description": ERRORS[status], "content": error}
    return found


def _inline(kind: Any) -> dict[str, Any]:
    """The schema of a simple type, without a reference to a component."""
    found = msgspec.json.schema(kind)
    return found["$defs"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found


def _id(operation: Listed) -> str:
    words = re.findall(r"\w+", operation.path.removeprefix("/api/v1"))
    return "_".join([operation.method.lower(), *words])
