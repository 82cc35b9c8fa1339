"""Entra ID's error answers, whatever they hold: typed, told in short plain words, and never more than that."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quart_app.auth.on_behalf_of.errors import OnBehalfOfError, OnBehalfOfUnavailable
from quart_app.auth.on_behalf_of.refusals import CODES, refused
from quart_app.web.errors import describe
from upstream.errors import told
from upstream.refusals import UNKNOWN_ADVICE

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "error": st.sampled_from(["invalid_grant", "invalid_client", "interaction_required", "new"]) | JSON,
        "suberror": st.sampled_from(["consent_required", "bad_token"]) | JSON,
        "error_codes": st.lists(st.sampled_from([*CODES]) | JSON, max_size=3) | JSON,
        "claims": st.just('{"access_token":{"x":1}}') | JSON,
        "correlation_id": JSON,
        "error_description": JSON,
    },
)
STATUSES = st.integers(300, 599)


@given(STATUSES, ANSWERS | JSON, st.dictionaries(st.sampled_from(["x-ms-request-id", "Retry-After"]), st.text()))
@example(400, {"error": "invalid_grant", "error_codes": [10**30, -1, 50013.0]}, {})
@example(400, {"error": "invalid_grant", "claims": '{"a":"' + "x" * 70_000 + '"}'}, {})
@example(400, {"error": "invalid_grant", "correlation_id": "a\r\nb"}, {"x-ms-request-id": "ü"})
def test_every_answer_is_a_typed_error_that_can_be_answered_and_logged(
    status: int, answer: Any, headers: dict[str, str]
) -> None:
    error = refused(status, headers, json.dumps(answer).encode())
    assert isinstance(error, OnBehalfOfError)
    assert error.cause is not None
    for word in (error.cause.code, error.cause.correlation_id):
        assert word is None or (len(word) <= 100 and word.isascii() and word.isprintable())
    assert "\n" not in told(error)
    response = describe(error, "") if getattr(error, "claims", None) is None else None
    if response is not None:
        assert all(len(value) < 2_000 and value.isascii() for value in response.headers.values())
    assert len(getattr(error, "claims", "")) <= 8 * 1024


@given(STATUSES, st.binary(max_size=200))
def test_bytes_that_are_no_answer_of_entra_id_are_passing_trouble(status: int, body: bytes) -> None:
    if not body.lstrip().startswith(b"{"):
        error = refused(status, {}, body)
        assert isinstance(error, OnBehalfOfUnavailable) or status == 429


@pytest.mark.parametrize(
    ("number", "code"),
    [(1, "AADSTS1"), (99_999_999, "AADSTS99999999"), *((odd, "invalid_grant") for odd in (0, -1, 100_000_000, True))],
)
def test_a_number_that_can_be_none_of_entra_ids_is_not_reported(number: int, code: str) -> None:
    error = refused(400, {}, json.dumps({"error": "invalid_grant", "error_codes": [number]}).encode())
    assert error.cause is not None
    assert error.cause.code == code


def test_an_operator_is_told_what_to_do_also_of_a_code_that_is_not_known() -> None:
    known, unknown, none_of_its_own = (
        refused(400, {}, body)
        for body in (b'{"error": "invalid_grant", "error_codes": [65001]}', b'{"error": "brand_new"}', b"<html>")
    )
    assert known.cause is not None
    assert known.cause.advice == CODES[65001].advice
    assert unknown.cause is not None
    assert unknown.cause.advice == UNKNOWN_ADVICE
    assert none_of_its_own.cause is not None
    assert none_of_its_own.cause.advice is None
