"""The API against its own document: made-up requests, good and bad, to a real fanout and a real hub.

Whatever comes in, the answer is none of a broken server, has a status and a shape that the document names, and bad
input is refused. Each operation is asked with made-up names, and again with those of a host, a command and a run that
exist.
"""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
import schemathesis
from doubles.deadline import WAIT_S
from doubles.operator_wire import TOKEN, FanoutHouse
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from processes.core.shown.pages import Error
from processes.core.travels.operator_requests import GiveBody, RunBody

EXAMPLES = 4  # of each operation, kind and place; with some 37 operations about 20 s
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]  # fmt: skip
UNWELL = {"/healthz"}  # no watchdog runs here: 503 is the truth
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def house() -> Iterator[FanoutHouse]:
    with FanoutHouse() as found:
        found.start("hub")
        with httpx.Client(base_url=found.url, headers=HEADERS, timeout=WAIT_S) as client:
            deadline = time.monotonic() + WAIT_S
            while client.post("/api/v1/hosts", json={"name": "web1"}).status_code not in (201, 409):
                assert time.monotonic() < deadline
            while client.get("/api/v1/hosts").json() is None or client.get("/api/v1/hosts/web1").status_code != 200:
                assert time.monotonic() < deadline
        yield found


def existing(client: httpx.Client) -> dict[str, str]:
    """Names that are there: a host, a command, a run, a token."""
    assert client.post("/api/v1/hosts", json={"name": "web1", "again": True}).status_code == 201
    given_now = client.post("/api/v1/commands", json={"op": "pull", "hosts": ["web1"], "ttl_s": 600})
    begun = client.post("/api/v1/runs", json={"steps": ["pull"], "hosts": ["web1"]})
    made = client.post("/api/v1/tokens", json={"role": "viewer"})
    assert (given_now.status_code, begun.status_code, made.status_code) == (202, 202, 201)
    return {
        "hosts": "web1", "commands": given_now.json()["commands"][0]["id"], "runs": begun.json()["id"],
        "tokens": made.json()["id"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def document(house: FanoutHouse) -> Any:
    return httpx.get(f"{house.url}/openapi.json").json()


def each(document: Any) -> list[tuple[str, str, Any]]:
    """Every operation with its method and path."""
    return [
        (method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def test_the_document_is_good_for_openapi_itself(document: Any) -> None:
    validate(document)
    for kind, name in re.findall(
        r'"#/components/(\w+)/(\w[\w-]*)"', json.dumps(document)
    ):  # also of what no operation uses
        assert name in document["components"][kind], name
    assert len(document["info"]["description"]) > 1000
    assert document["servers"] == [{"url": "/"}]


def test_a_generated_client_finds_a_method_of_a_good_name_for_each_operation(document: Any) -> None:
    ids = [operation["operationId"] for _, _, operation in each(document)]
    assert len(ids) == len(set(ids)) >= 37
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", id) for id in ids)
    known = {
        "list_hosts",
        "get_host",
        "enroll_host",
        "remove_host",
        "give_commands",
        "get_command",
        "cancel_command",
        "start_run",
    }
    assert known <= set(ids)
    tags = {tag["name"] for tag in document["tags"]}
    assert {operation["tags"][0] for _, _, operation in each(document)} == tags


def test_the_document_says_who_may_and_that_either_way_of_signing_in_suffices(
    house: FanoutHouse, document: Any
) -> None:
    open_to_all = {"/healthz", "/livez", "/login"}
    for method, path, operation in each(document):
        assert ("security" in operation) is (path not in open_to_all), path
        if path not in open_to_all:
            assert operation["security"] == [{"token": []}, {"session": []}], path
            assert operation["x-role"] in re.findall(r"Role: ([a-z]+)", operation["description"])[0], (method, path)
    roles = {operation["operationId"]: operation.get("x-role") for _, _, operation in each(document)}
    assert [roles[id] for id in ("list_hosts", "give_commands", "enroll_host", "open_websocket")] == [
        "viewer",
        "operator",
        "admin",
        "viewer",
    ]
    signed_in = httpx.post(f"{house.url}/login", json={"token": TOKEN})
    assert list(signed_in.cookies) == [document["components"]["securitySchemes"]["session"]["name"]]
    assert httpx.get(f"{house.url}/api/v1/me", cookies=dict(signed_in.cookies)).status_code == 200


def test_the_document_claims_no_answer_that_cannot_be(document: Any) -> None:
    for method, path, operation in each(document):
        statuses = set(operation["responses"])
        assert "421" in statuses, path
        assert ("413" in statuses) is ("requestBody" in operation), (method, path)
        assert ("304" in statuses) is (method == "get" and path not in ("/healthz", "/livez", "/ws")), (method, path)
    assert set(document["paths"]["/livez"]["get"]["responses"]) == {"200", "421"}
    assert not {"408", "504"} & set(document["paths"]["/api/v1/sessions/{id}"]["delete"]["responses"])


def test_the_headers_that_the_document_promises_are_sent(house: FanoutHouse, document: Any) -> None:
    with httpx.Client(base_url=house.url, headers=HEADERS) as client:
        tag = client.get("/api/v1/hosts").headers["etag"]
        assert client.get("/api/v1/hosts", headers={"If-None-Match": tag}).status_code == 304
        away = client.put("/api/v1/hosts")
        assert (away.status_code, set(away.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "POST"})
        assert client.get("/livez", headers={"Host": "elsewhere.example"}).status_code == 421
        assert client.get("/ws").headers["upgrade"] == "websocket"
    assert httpx.get(f"{house.url}/api/v1/hosts").headers["www-authenticate"] == "Bearer"
    responses = document["components"]["responses"]
    promised = {name: set(response["headers"]) for name, response in responses.items() if "headers" in response}
    assert promised == {
        "NotSignedIn": {"WWW-Authenticate"}, "MethodNotAllowed": {"Allow"}, "UpgradeRequired": {"Upgrade"},
        "TooMany": {"Retry-After"}, "Unavailable": {"Retry-After"},
    }  # fmt: skip
    hosts = document["paths"]["/api/v1/hosts"]["get"]
    assert set(hosts["responses"]["200"]["headers"]) == {"ETag"}
    assert {"$ref": "#/components/parameters/IfNoneMatch"} in hosts["parameters"]
    assert set(document["paths"]["/login"]["post"]["responses"]["200"]["headers"]) == {"Set-Cookie"}


def test_the_examples_are_of_the_types_that_are_decoded(document: Any) -> None:
    for path, kind in (("/api/v1/commands", GiveBody), ("/api/v1/runs", RunBody)):
        msgspec.convert(document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"], kind)


def test_times_words_and_objects_are_typed(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        for field, kind in schema.get("properties", {}).items():
            is_time = (field.endswith("_at") and field != "stuck_at") or field in (
                "connected_since",
                "unheard_since",
                "last_seen",
            )
            if is_time:
                assert {"type": "string", "format": "date-time"} in kind["anyOf"], (name, field)
    host = schemas["HostView"]["properties"]
    assert host["presence"] == {"$ref": "#/components/schemas/Presence"}
    assert schemas["Presence"]["enum"] == ["offline", "online", "stale"]
    assert host["facts"] == host["heartbeat_facts"] == {"type": "object"}


def test_a_key_again_is_answered_with_commands_and_a_run_as_the_document_has_them(
    house: FanoutHouse, document: Any
) -> None:
    both = [{"$ref": "#/components/schemas/CommandView"}, {"$ref": "#/components/schemas/Named"}]
    assert document["components"]["schemas"]["Repeated"]["properties"]["commands"]["items"] == {"anyOf": both}
    schema = schemathesis.openapi.from_dict(document)
    with httpx.Client(base_url=house.url, headers=HEADERS, timeout=WAIT_S) as client:
        asked: list[tuple[str, dict[str, Any]]] = [
            ("/api/v1/commands", {"op": "pull"}),
            ("/api/v1/runs", {"steps": ["pull"]}),
        ]
        for path, what in asked:
            body = {**what, "hosts": ["web1"], "key": f"again{path}", "ttl_s": 600}
            answers = [client.post(path, json=body) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [202, 200]
            schema[path]["POST"].validate_response(answers[1])
            refused = client.post(path, json={**body, "ttl_s": 60})
            assert msgspec.json.decode(refused.content, type=Error).error == "key_used"


def test_the_document_knows_every_field_that_an_error_has() -> None:
    sent = {
        keyword.arg
        for path in (Path(__file__).resolve().parents[2] / "processes").rglob("*.py")
        if path.parent.name in ("core", "hub", "fanout")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in ("Problem", "Refused", "problem")
        for keyword in call.keywords
    }
    assert {"field", "host", "command", "run"} <= sent
    assert sent - {None} <= set(Error.__struct_fields__)


def test_whatever_is_asked_the_answer_is_one_that_the_document_names(house: FanoutHouse) -> None:
    with httpx.Client(base_url=house.url, headers=HEADERS, timeout=WAIT_S) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
        assert len(operations) >= 37
        failures = []
        for operation in operations:
            if operation.path == "/ws":
                continue
            kind = operation.path.removeprefix("/api/v1/").partition("/")[0]
            places: list[dict[str, str] | None] = [None]
            if "{" in operation.path and kind in (known := existing(client)):
                places.append({operation.path.partition("{")[2].partition("}")[0]: known[kind]})
            for place in places:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    failures += asked(house, operation, mode, place)
        assert failures == []


def vanished(operation: Any, answer: Any, error: FailureGroup) -> bool:
    """True if what was to be wrong is not in the request that went out: a parameter too many, whose value is nothing in
    a URL.
    """
    known = {parameter.name for parameter in operation.query}
    sent = set(parse_qs(urlsplit(answer.request.url).query, keep_blank_values=True))
    return sent <= known and all("additionalProperties" in str(each) for each in error.exceptions)


def asked(house: FanoutHouse, operation: Any, mode: GenerationMode, place: dict[str, str] | None) -> list[str]:
    """What was wrong with the answers to some requests of this operation."""
    excluded = [not_a_server_error] if operation.path in UNWELL else []

    @given(case=operation.as_strategy(mode, path_parameters=place))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    def ask(case: Any) -> None:
        answer = case.call(base_url=house.url, headers=HEADERS)
        try:
            case.validate_response(answer, checks=CHECKS, excluded_checks=excluded)
        except FailureGroup as error:
            if not vanished(operation, answer, error):
                raise

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, operation.label  # nothing about this operation can be wrong
    except Exception as error:
        return [f"{operation.label} {mode.value}: {error}"[:3000]]
    return []
