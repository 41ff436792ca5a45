"""Masking of secrets in a stream."""

import base64
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logflume.errors import SettingsError
from logflume.ship.mask import MASK, Masker, read_values


def masked(values: list[bytes], *pieces: bytes) -> bytes:
    masker = Masker(values)
    return b"".join(map(masker.feed, pieces)) + masker.end()


@given(
    st.lists(st.text("ab", min_size=6, max_size=9).map(str.encode), min_size=1, max_size=4),
    st.lists(st.text("ab", max_size=9).map(str.encode)),
)
@example([b"aaaaaa", b"aaaaaab"], [b"aaaaaa", b"b"])
@example([b"aaaaaa", b"baaaaaaa"], [b"b", b"aaaaaa"])
def test_the_result_does_not_depend_on_how_the_bytes_are_split(values, pieces):
    assert masked(values, *pieces) == masked(values, b"".join(pieces))


@given(st.binary(min_size=9, max_size=40), st.binary(max_size=5), st.binary(max_size=5))
def test_encoded_values_are_masked_whatever_is_around_them(value, before, after):
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = masked([value], encode(before + value + after))
        assert MASK in text
        # What remains are characters that also depend on the bytes around the value.
        assert len(text.replace(MASK, b"")) <= len(encode(before)) + len(encode(after)) + 4
    for form in (quote(value, safe=""), quote_plus(value)):
        assert masked([value], b"=" + form.encode() + b"&") == b"=" + MASK + b"&"


def test_a_secret_is_held_back_only_while_it_can_be_one():
    masker = Masker([b"secret"])
    assert masker.feed(b"the sec") == b"the "
    assert masker.held_bytes == 3
    assert masker.feed(b"ond") == b"second"
    assert masker.feed(b"secret") == MASK


def test_values_come_from_the_environment_and_a_file(tmp_path: Path):
    path = tmp_path / "secrets"
    path.write_bytes(b"first one\nshort\n\nsecond one\n")
    environment = {b"KEY": b"line one\nline two"}
    values = [b"line one\nline two", b"line one", b"line two", b"first one", b"second one"]
    assert read_values(["KEY"], environment, path) == values
    for names, file, error in (
        (["OTHER"], None, "--mask OTHER: not set"),
        ([], tmp_path / "missing", "No such file"),
    ):
        with pytest.raises(SettingsError, match=error):
            read_values(names, environment, file)
