"""data.json and the context over it: what is taken, and how what is not is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phalanx.controller.workflow.card import read_cards
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.data import PROVIDERS, DataBook, load_data, read_data
from phalanx.controller.workflow.errors import InputError

LOCAL = {"local": {"path": "/data/x"}}


def book(tmp_path: Path, document: Any, context: str = "") -> DataBook:
    (tmp_path / "data.json").write_text(json.dumps(document))
    return load_data(tmp_path / "data.json", "data.json", load_context(context), required=False)


def card(data: str) -> Any:
    return read_cards([{"name": "m", "scripts": "s", "data": data}], "models.json")[0]


def test_providers_are_in_their_fixed_order_whatever_the_file_says(tmp_path: Path) -> None:
    entries = {name: {"path": "/p"} for name in ("aws", "nas", "local", "minio", "custom")}
    (found,) = book(tmp_path, {"d": entries}).of_card(card("d"))
    assert [source.provider for source in found.sources] == list(PROVIDERS)
    assert found.sources[1].origin == "data.json: d.local"


def test_data_sets_come_in_the_order_of_the_card(tmp_path: Path) -> None:
    found = book(tmp_path, {"a": LOCAL, "b": LOCAL}).of_card(card(" b , a "))
    assert [one.name for one in found] == ["b", "a"]


def test_what_madengine_writes_as_text_is_understood() -> None:
    entry = {"path": "s3://b/k", "home": "/h", "mirrorlocal": "/m", "readwrite": "true", "args": 3}
    (said,) = read_data({"d": {"minio": entry}, "_comment": "x"}, "data.json")["d"].values()
    assert (said.path, said.home, said.mirror, said.read_write, said.args) == (
        "s3://b/k",
        "/h",
        "/m",
        True,
        "3",
    )


def test_the_context_goes_over_the_file_provider_by_provider(tmp_path: Path) -> None:
    context = '{"data": {"d": {"local": {"path": "/other"}}, "new": {"nas": {"path": "/n"}}}}'
    found = book(tmp_path, {"d": {**LOCAL, "aws": {"path": "b/k"}}}, context)
    (d,) = found.of_card(card("d"))
    assert [(one.provider, one.said.path) for one in d.sources] == [("local", "/other"), ("aws", "b/k")]
    assert d.sources[0].origin == "--additional-context: data.d.local"
    assert found.of_card(card("new"))[0].sources[0].provider == "nas"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "expected an object of data sets, found a list"),
        ({"d": []}, "d: expected an object, found a list"),
        ({"d": {}}, "d: no provider is named; say custom, local, minio, nas, aws"),
        (
            {"d": {"mino": {"path": "x"}}},
            "d.mino: it is no provider; .*did you mean 'minio'",
        ),
        (
            {"d": {"local": {"pth": "/x", "path": "/x"}}},
            "d.local.pth: it is not a known key; .*'path'",
        ),
        ({"d": {"local": {}}}, "d.local.path: it is required and missing"),
        ({"d": {"local": {"path": ""}}}, "d.local.path: "),
        ({"d": {"local": {"path": 3}}}, "d.local.path: expected text, found the number 3"),
        (
            {"d": {"local": {"path": "/x", "readwrite": "perhaps"}}},
            "d.local.readwrite: expected true",
        ),
        ({"d": {"local": {"path": "/x\ny"}}}, "d.local.path: it is longer .* printable ones"),
        ({"d": {"minio": {"path": "https://u:secret@h/x"}}}, "d.minio.path: it holds a password"),
        ({"d": {"local": {"path": "${HOME}"}}}, "d.local.path: .*not looked up here"),
        ({"a,b": LOCAL}, "'a,b' is no name of a data set"),
        ({"../a": LOCAL}, "'../a' is no name of a data set"),
        ({"..": LOCAL}, "'..' is no name of a data set"),
    ],
)
def test_a_file_that_is_not_right_is_refused_with_its_key_path(
    tmp_path: Path, document: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        book(tmp_path, document)
    assert "data.json" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_an_unknown_data_set_is_named_with_card_and_nearest_spelling(tmp_path: Path) -> None:
    words = r"models.json: \[0\] \(m\): data: there is no data set 'imagnet' in data.json; .* 'imagenet'"
    with pytest.raises(InputError, match=words):
        book(tmp_path, {"imagenet": LOCAL}).of_card(card("imagnet"))


def test_a_data_set_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data: 'd' is named twice"):
        book(tmp_path, {"d": LOCAL}).of_card(card("d,d"))


def test_a_file_that_is_not_there_is_named_when_a_card_needs_it(tmp_path: Path) -> None:
    found = load_data(tmp_path / "data.json", "data.json", load_context(), required=False)
    assert found.of_card(card("")) == ()
    with pytest.raises(InputError, match=r"data.json does not exist; add it, or say --data-config FILE"):
        found.of_card(card("d"))
    with pytest.raises(InputError, match=r"cannot read mine\.json"):
        load_data(tmp_path / "mine.json", "mine.json", load_context(), required=True)


names = st.one_of(
    st.sampled_from(("local", "path", "home", "readwrite", "a", "_c", "..")), st.text(max_size=5)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_any_document_is_read_or_refused(document: Any) -> None:
    try:
        read_data(document, "data.json")
    except InputError as refused:
        assert "data.json" in str(refused)
