"""Whatever is sent to the submit route, the answer is a submit body or a 422 of the contract's shape."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from app.config import Settings
from app.main import create_app
from models.schema.inputs import ControlNetLoraInput
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, served

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
changed_fields = st.dictionaries(
    st.sampled_from(sorted(ControlNetLoraInput.model_fields)), json_values, max_size=5
)
bodies = json_values | st.builds(lambda changes: DOCUMENTED_INPUT | changes, changed_fields)


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    limits = settings.model_copy(update={"max_queue": 10_000})
    with served(create_app(limits), limits) as base_url, httpx.Client(base_url=base_url) as client:
        yield client


def check(answer: httpx.Response) -> None:
    body = answer.json()
    if answer.status_code == 200:
        assert {"request_id", "status_url", "result_url", "cancel_url"} <= set(body)
        return
    assert (answer.status_code, body["error_code"]) == (422, 422001)
    assert body["detail"]
    assert len(body["error_message"]) < 5000


@examples(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=bodies)
def test_any_json(http: httpx.Client, body: Any) -> None:
    check(http.post(SUBMIT, json=body))


@examples(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u00d8ntfe1-. ', max_size=60).map(str.encode))
def test_any_bytes(http: httpx.Client, body: bytes) -> None:
    check(http.post(SUBMIT, content=body))
