"""Replaces secrets in a stream of bytes, also where they are split between two reads."""

import base64
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from logflume.errors import SettingsError

MASK = b"[secure]"
# Shorter ones occur by chance in almost every log.
MIN_BYTES = 6


def read_values(
    names: Iterable[str], environment: Mapping[bytes, bytes], path: Path | None
) -> list[bytes]:
    """The values of environment variables and the lines of a file that are long enough to mask.

    The lines of a value are values too: a key is often printed with other line breaks.

    Raises:
        SettingsError: a variable is not set, is too short, or the file cannot be read.
    """
    values = []
    for name in names:
        value = environment.get(name.encode(), b"")
        if len(value) < MIN_BYTES:
            raise SettingsError(f"--mask {name}: not set, or shorter than {MIN_BYTES} bytes")
        values += [value, *value.splitlines()]
    if path:
        try:
            values += path.read_bytes().splitlines()
        except OSError as error:
            raise SettingsError(f"--mask-file {path}: {error.strerror}") from None
    return [one for one in values if len(one) >= MIN_BYTES]


class Masker:
    """Masks values and their base64 and URL-encoded forms.

    The result depends on the bytes only, not on how they are split: what could be the beginning of
    a secret is held back until more bytes, or the end, decide.
    """

    def __init__(self, values: Iterable[bytes], *, unencoded: Iterable[bytes] = ()) -> None:
        """Mask all forms of `values`, and `unencoded` as they are: each form costs time."""
        forms = {form for value in values for form in _forms(value)} | {*unencoded}
        self._secrets = sorted(forms, key=len)
        self._longest = max(map(len, self._secrets), default=0)
        self._firsts = {secret[0] for secret in self._secrets}
        self._held = b""

    @property
    def held_bytes(self) -> int:
        """How many of the bytes so far are held back."""
        return len(self._held)

    def feed(self, data: bytes) -> bytes:
        """Add bytes; returns what is decided by now."""
        return self._replace(self._held + data, is_end=False) if self._secrets else data

    def end(self) -> bytes:
        """Return the rest."""
        return self._replace(self._held, is_end=True)

    def _replace(self, data: bytes, *, is_end: bool) -> bytes:
        pieces, position = [], 0
        next_of = dict.fromkeys(self._secrets, -1.0)
        while True:
            start, secret = self._first(data, position, next_of)
            undecided = len(data) if is_end else self._undecided(data, position)
            if start >= undecided:
                break
            pieces += [data[position : int(start)], MASK]
            position = int(start) + len(secret)
        self._held = data[undecided:]
        return b"".join([*pieces, data[position:undecided]])

    def _first(
        self, data: bytes, position: int, next_of: dict[bytes, float]
    ) -> tuple[float, bytes]:
        """Where the next secret begins, and which one; of several the longest."""
        first, which = math.inf, b""
        for secret in self._secrets:
            if next_of[secret] < position:
                found = data.find(secret, position)
                next_of[secret] = found if found >= 0 else math.inf
            if next_of[secret] <= first:
                first, which = next_of[secret], secret
        return first, which

    def _undecided(self, data: bytes, position: int) -> int:
        """From where on the data may be the beginning of a secret."""
        for start in range(max(position, len(data) - self._longest + 1), len(data)):
            if data[start] not in self._firsts:
                continue
            tail = data[start:]
            if any(len(one) > len(tail) and one.startswith(tail) for one in self._secrets):
                return start
        return len(data)


def _forms(value: bytes) -> Iterator[bytes]:
    yield value
    yield quote(value, safe="").encode()
    yield quote_plus(value).encode()
    for offset in range(3):
        # Without the characters that depend on the bytes before and after the value.
        text = base64.b64encode(bytes(offset) + value)
        end = (offset + len(value)) * 8 // 6
        form = text[math.ceil(offset * 8 / 6) : end]
        if len(form) >= MIN_BYTES:
            yield form
            yield form.translate(bytes.maketrans(b"+/", b"-_"))
