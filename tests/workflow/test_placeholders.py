"""``${NAME}`` is a whole value that is resolved, or it is refused; nothing of it is ever passed on."""

from __future__ import annotations

import pytest
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.placeholders import resolve, resolve_shown

ENVIRON = {"ROOT": "/m", "MAD_SECRETS_HFTOKEN": "hf_1234567", "NESTED": "${ROOT}"}


def test_a_whole_placeholder_is_the_variable_and_says_so() -> None:
    found = resolve("${ROOT}", ENVIRON, "x")
    assert (found.text, found.variable, found.secret) == ("/m", "ROOT", False)
    assert resolve("${MAD_SECRETS_HFTOKEN}", ENVIRON, "x").secret
    assert "hf_1234567" not in repr(resolve("${MAD_SECRETS_HFTOKEN}", ENVIRON, "x"))


def test_a_variable_that_looks_like_a_placeholder_is_not_looked_into() -> None:
    assert resolve("${NESTED}", ENVIRON, "x").text == "${ROOT}"


@pytest.mark.parametrize(
    "text", ["", "plain", "$ROOT", "$(ls)", "${model.name}", "${oc.env:X}", "a}b{", "${}"]
)
def test_what_is_no_placeholder_is_text(text: str) -> None:
    assert resolve(text, ENVIRON, "x").text == text


@pytest.mark.parametrize(
    "text",
    ["${ROOT}/x", " ${ROOT}", "${ROOT}\n", "${ROOT:-/d}", "${ROOT-x}", "${ROOT#/}", "${ROOT%%/*}", "${A}${B}",
     "${ROOT/a/b}", "${ROOT^^}", "${ROOT[0]}", "${ROOT@Q}"],
)  # fmt: skip
def test_within_a_text_and_in_a_shells_other_forms_it_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"cannot use f: k: it holds the placeholder \$\{"):
        resolve(text, ENVIRON, "f: k")


def test_the_default_of_a_placeholder_is_not_shown() -> None:
    with pytest.raises(InputError) as refused:
        resolve("${HF_TOKEN:-hf_1234567}", ENVIRON, "f: k")
    assert "hf_1234567" not in str(refused.value)
    assert "${HF_TOKEN...}" in str(refused.value)


def test_a_variable_that_is_not_set_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"cannot use f: k: it is \$\{NOPE\}, and NOPE is not set here"):
        resolve("${NOPE}", ENVIRON, "f: k")


def test_a_secret_where_everyone_sees_it_is_refused() -> None:
    assert resolve_shown("${ROOT}", ENVIRON, "f: k") == "/m"
    with pytest.raises(InputError, match="is a secret, and this value is shown") as refused:
        resolve_shown("${MAD_SECRETS_HFTOKEN}", ENVIRON, "f: k")
    assert "hf_1234567" not in str(refused.value)
