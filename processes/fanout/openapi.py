"""GET /openapi.json: made from the table of operations and the very types that are decoded and encoded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from processes.core.shown.pages import Error
from processes.core.values import Role
from processes.fanout import openapi_prose

COMPONENTS: Final = "#/components"
# class → name of its schema; names in the API do not change
API_NAMES: Final = {"DeadLetterView": "LetterView", "DeadLetterGone": "LetterGone"}
BODIES: Final = (400, 408, 413)  # answers to a body that is wrong
HUB: Final = (500, 503, 504)  # answers to a request that the hub did not accept or refuse
WRONG_HOST: Final = 421  # checked before anything else


class Query(NamedTuple):
    """A parameter of a query. `kind`: a type as msgspec knows it, limits included."""

    name: str
    kind: Any
    description: str


class Described(NamedTuple):
    """One operation in the document. `answers`: status → type, None for no body; `errors`: beside the usual ones."""

    id: str
    tag: str
    summary: str
    answers: dict[int, Any]
    body: type[msgspec.Struct] | None = None
    query: tuple[Query, ...] = ()
    errors: tuple[int, ...] = ()
    media: str = "application/json"
    text: str = ""
    example: Any = None  # of a body
    role: Role | None = None  # if it is not the endpoint's guard that asks for it
    asks_hub: bool = False
    sets_cookie: bool = False


class Listed(NamedTuple):
    """One operation with its method and path. `role` None: no sign-in."""

    method: str
    path: str
    role: Role | None
    described: Described


def either(*kinds: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the schema of one of several types, which msgspec cannot tell apart. `document` gets them as `named`."""
    return {"anyOf": [{"$ref": f"{COMPONENTS}/schemas/{kind.__name__}"} for kind in kinds]}


def document(
    operations: list[Listed],
    version: str,
    cookie_name: str,
    named: Iterable[type[msgspec.Struct]] = (),
    prefix: str = "",
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the operations.

    `named`: types that only `either` refers to; `prefix`: the path of operators.url, below which all of them are.
    """
    kinds = [kind for o in operations for kind in (o.described.body, *o.described.answers.values()) if kind is not None]
    unique = list(dict.fromkeys([Error, *named, *kinds]))
    found = msgspec.json.schema_components(unique, ref_template=f"{COMPONENTS}/schemas/{{name}}")
    schemas, components = _with_api_names(found)
    schema = dict(zip(unique, schemas, strict=True))
    components["Error"]["additionalProperties"] = True
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schema)
    used = {operation.described.tag for operation in operations}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fleethub", "version": version, "description": openapi_prose.ABOUT},
        "servers": [{"url": prefix or "/"}],
        "tags": [{"name": name, "description": text} for name, text in openapi_prose.TAGS.items() if name in used],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {name: _error(status, text) for status, (name, text) in openapi_prose.ERRORS.items()},
            "headers": {
                name: {"description": text, "required": True, "schema": kind}
                for name, (text, kind) in openapi_prose.HEADERS.items()
            },
            "parameters": {
                "IfNoneMatch": {
                    "name": "If-None-Match", "in": "header", "schema": {"type": "string"},
                    "description": "ETags of answers that you have: 304 if it still is one of them",
                },
            },
            "securitySchemes": {
                "token": {
                    "type": "http", "scheme": "bearer",
                    "description": "operator.token, or one of `fleethub token create`",
                },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": cookie_name,
                    "description": "of POST /login; named after the installation"
                },
            },
        },
    }  # fmt: skip


def _with_api_names(found: Any) -> Any:
    """Return the schemas with the names of API_NAMES."""
    text = msgspec.json.encode(found).decode()
    for own, name in API_NAMES.items():
        text = re.sub(rf"\b{own}\b", name, text)
    return msgspec.json.decode(text)


def _operation(operation: Listed, schema: dict[Any, Any]) -> dict[str, Any]:
    described, role = operation.described, operation.role or operation.described.role
    tagged = operation.method == "GET" and operation.role is not None  # web.guarded gives it an ETag
    found: dict[str, Any] = {"operationId": described.id, "tags": [described.tag], "summary": described.summary}
    words = [described.text] if described.text else []
    if role is not None:
        words.append(f"Role: {', '.join(each for each in Role if each.may(role))}.")
        found |= {"security": [{"token": []}, {"session": []}], "x-role": role.value}
    found["description"] = "\n\n".join(words or ["No sign-in."])
    names = re.findall(r"\{(\w+)\}", operation.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    parameters += [
        {"name": q.name, "in": "query", "description": q.description, "schema": _inline(q.kind)}
        for q in described.query
    ]
    if tagged:
        parameters.append({"$ref": f"{COMPONENTS}/parameters/IfNoneMatch"})
    if parameters:
        found["parameters"] = parameters
    if described.body is not None:
        content = {
            "schema": schema[described.body],
            **({} if described.example is None else {"example": described.example}),
        }
        found["requestBody"] = {"required": True, "content": {"application/json": content}}
    found["responses"] = {
        str(status): _answer(described, schema, status, kind, tagged) for status, kind in described.answers.items()
    }
    for status in sorted(_statuses(operation, role, bool(names)) - set(described.answers)):
        found["responses"][str(status)] = {"$ref": f"{COMPONENTS}/responses/{openapi_prose.ERRORS[status][0]}"}
    if tagged:
        found["responses"]["304"] = {"description": "as it was when you got this ETag", "headers": _headers("ETag")}
    return found


def _statuses(operation: Listed, role: Role | None, names: bool) -> set[int]:
    """Return which other statuses may be answered."""
    described, read = operation.described, operation.method == "GET" and role is not None
    return {
        WRONG_HOST,
        *described.errors,
        *(BODIES if described.body is not None else ()),
        *(HUB if described.asks_hub else ()),
        *((503,) if read else ()),
        *((401, 403, 429) if role is not None else ()),
        *((404,) if names else ()),
        *((400,) if operation.path.startswith("/api/") else ()),  # for an unknown parameter
    }


def _answer(described: Described, schema: dict[Any, Any], status: int, kind: Any, tagged: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": described.summary}
    headers = [
        name for name, said in (("ETag", tagged), ("Set-Cookie", described.sets_cookie)) if said and status == 200
    ]
    headers += [openapi_prose.HEADERS_OF[status]] if status in openapi_prose.HEADERS_OF else []
    if headers:
        answer["headers"] = _headers(*headers)
    if kind is not None:
        answer["content"] = {described.media: {"schema": schema[kind]}}
    return answer


def _error(status: int, text: str) -> dict[str, Any]:
    """Return the response of an error status, which all operations share."""
    headers = {"headers": _headers(openapi_prose.HEADERS_OF[status])} if status in openapi_prose.HEADERS_OF else {}
    content = {"application/json": {"schema": {"$ref": f"{COMPONENTS}/schemas/Error"}}}
    return {"description": text, **headers, "content": content}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"{COMPONENTS}/headers/{name}"} for name in names}


def _inline(kind: Any) -> dict[str, Any]:
    """Return the schema of a simple type, without a reference to a component."""
    found = msgspec.json.schema(kind)
    return found["$defs"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found
