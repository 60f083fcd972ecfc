"""The API against its own document: made-up requests, good and bad, to a real fanout and a real hub.

Whatever comes in, the answer is none of a broken server, has a status and a shape that the document names, and bad input is
refused. Each operation is asked with made-up names, and again with those of a host, a command and a run that exist.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import schemathesis
from doubles.operator_wire import TOKEN, WAIT_S, FanoutHouse
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = 4  # of each operation, kind and place; with some 35 operations about 20 s
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance, negative_data_rejection,
]  # fmt: skip
UNWELL = {"/healthz"}  # no watchdog runs here: 503 is the truth
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def house() -> Iterator[FanoutHouse]:
    with FanoutHouse() as found:
        found.start("hub")
        with httpx.Client(base_url=found.url, headers=HEADERS, timeout=20) as client:
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
        "hosts": "web1", "commands": given_now.json()["commands"][0]["id"], "runs": begun.json()["id"], "tokens": made.json()["id"],
    }  # fmt: skip


def test_whatever_is_asked_the_answer_is_one_that_the_document_names(house: FanoutHouse) -> None:
    with httpx.Client(base_url=house.url, headers=HEADERS, timeout=20) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
        assert len(operations) >= 28
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
    """True if what was to be wrong is not in the request that went out: a parameter too many, whose value is nothing in a URL."""
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
