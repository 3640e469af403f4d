"""What counts as a secret in texts that other people wrote."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phalanx.controller.workflow.secrecy import url_password

#: The rule as one would write it, which takes the square of the length for a long word.
PLAIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:(?P<password>[^/\s@]+)@", re.IGNORECASE)


@pytest.mark.parametrize("text", ["a" * 500_000, "a1" * 250_000, "a" + "1" * 500_000, "a://b:" * 80_000])
def test_a_long_text_is_looked_through_in_no_time(text: str) -> None:
    before = time.process_time()
    assert url_password(text) == ""
    assert url_password(f"{text} https://me:geheim@host/") == "geheim"
    assert time.process_time() - before < 2


@settings(max_examples=2000)
@given(st.lists(st.sampled_from([*"aZ1+.-:/@ ", "://", "a://b:c@"]), max_size=14).map("".join))
def test_a_password_in_a_url_is_found_as_by_the_plain_rule(text: str) -> None:
    plain = PLAIN.search(text)
    assert url_password(text) == (plain["password"] if plain else "")
