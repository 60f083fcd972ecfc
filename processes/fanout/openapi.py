"""GET /openapi.json: made from the table of operations and the very types that are decoded and encoded."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

ERRORS: Final = {
    "400": "malformed: `field` names what", "401": "not signed in", "403": "this role may not", "404": "there is none",
    "409": "not possible now", "413": "the body is too large", "422": "the host does not offer this op", "429": "too many: come back later",
    "503": "not reached or refused: it will not happen, ask again", "504": "outcome unknown: ask again with the same key",
}  # fmt: skip


class Described(NamedTuple):
    """What the document says of one operation. `listed`: the answer is {listed: [answer]}."""

    summary: str
    body: type[msgspec.Struct] | None = None
    status: int = 200
    answer: type[msgspec.Struct] | None = None
    listed: str = ""


def document(operations: list[tuple[str, str, bool, Described]]) -> dict[str, Any]:
    """OpenAPI 3.1 of (method, path, whether it needs sign-in, description)."""
    types = [t for *_, d in operations for t in (d.body, d.answer) if t is not None]
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    schema = dict(zip(unique, schemas, strict=True))
    components["Error"] = {
        "type": "object",
        "required": ["error", "message"],
        "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    }
    paths: dict[str, dict[str, Any]] = {}
    for method, path, signed_in, described in operations:
        paths.setdefault(path, {})[method.lower()] = _operation(path, signed_in, described, schema)
    return {
        "openapi": "3.1.0",
        "info": {"title": "fleethub", "version": "1"},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(path: str, signed_in: bool, described: Described, schema: dict[type[msgspec.Struct], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": described.summary, "responses": {}}
    names = re.findall(r"\{(\w+)\}", path)
    if names:
        found["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    if described.body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema[described.body]}}}
    answer: dict[str, Any] = {"description": described.summary}
    if described.answer is not None:
        shape = schema[described.answer]
        if described.listed:
            shape = {"type": "object", "properties": {described.listed: {"type": "array", "items": shape}}}
        answer["content"] = {"application/json": {"schema": shape}}
    found["responses"][str(described.status)] = answer
    if signed_in:
        found["security"] = [{"token": []}]
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        found["responses"] |= {status: {"description": text, "content": error} for status, text in ERRORS.items()}
    return found
