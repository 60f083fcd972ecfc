"""processes.core.travels.operator_requests: the bodies are what the hub gets."""

from __future__ import annotations

import msgspec
import pytest

from processes.core.travels.messages import GiveCommand, StartRun
from processes.core.travels.operator_requests import GiveBody, RunBody


@pytest.mark.parametrize(("body", "request_"), [(GiveBody, GiveCommand), (RunBody, StartRun)])
def test_a_body_has_exactly_the_fields_that_the_hub_gets(
    body: type[msgspec.Struct], request_: type[msgspec.Struct]
) -> None:
    """The bug it would catch: a field that the API takes and nobody hands on."""

    def shape(kind: type[msgspec.Struct]) -> dict[str, object]:
        return {field.name: field.default for field in msgspec.structs.fields(kind)}

    assert shape(body) == shape(request_)
