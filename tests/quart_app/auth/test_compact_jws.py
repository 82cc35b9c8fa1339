"""How deep a header or claims may nest: counted as depth, and not by the brackets that stand in a text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quart_app.auth.compact_jws import MAXIMUM_DEPTH, json_object

TEXTS = st.text(st.sampled_from('[]{}"\\,:a\n\u00e9')) | st.text()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth(each) for each in value.values()), default=0)
    return 1 + max((depth(each) for each in value), default=0) if isinstance(value, list) else 0


@given(value=VALUES, levels=st.integers(0, MAXIMUM_DEPTH + 5), in_lists=st.booleans(), text=TEXTS)
def test_an_object_is_read_exactly_if_it_nests_at_most_so_deep(
    value: Any, levels: int, in_lists: bool, text: str
) -> None:
    for _ in range(levels):
        value = [text, value] if in_lists else {text: value}
    whole = {"before": text * 50, "value": value, "after": "]" * 200}
    encoded = json.dumps(whole, ensure_ascii=False).encode()
    if depth(whole) <= MAXIMUM_DEPTH:
        assert json_object(encoded) == whole
    else:
        with pytest.raises(ValueError, match="nests too deeply"):
            json_object(encoded)


@pytest.mark.parametrize(
    "text",
    [
        b'{"',
        b'{"\\',
        b'{"a\\"',
        b'{"a":"[[[[',
        b'"' * 12_001,
        b'\\"' * 6_000,
        b'{"a":"' + b'\\"' * 6_000,
        b"]" * 12_000,
    ],
    ids=["a text", "a backslash", "a quotation mark", "brackets", "many", "escaped", "inside", "closing"],
)
def test_what_has_no_end_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        json_object(text)
    assert "nests" not in str(caught.value)
