"""Checks the contrast of every log colour on every row background, in both themes."""

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "web" / "static"
BACKGROUNDS = ("bg", "raised", "select", "found", "here")
AA = 4.5


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def colours(theme: str) -> dict[str, str]:
    """The custom properties that the first rule of a theme sets."""
    found: dict[str, str] = {}
    for name in ("base.css", "log.css", "ansi.css"):
        text = (STATIC / name).read_text()
        block = text.split(theme, 1)[1].split("}", 1)[0]
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    return found


@pytest.mark.parametrize("theme", [":root {", ':root[data-theme="dark"] {'])
def test_colours_are_readable(theme):
    known = colours(theme)
    names = [f"c{n}" for n in range(16)] + ["text", "muted"]
    for name in names:
        for background in BACKGROUNDS:
            assert contrast(known[name], known[background]) >= AA, (name, background)
    assert contrast(known["on0"], known["plain0"]) >= AA
    assert contrast(known["on7"], known["plain7"]) >= AA
    for name in ("good", "bad", "warn", "busy", "accent"):
        assert contrast(known[name], known["bg"]) >= AA, name


@pytest.mark.parametrize(
    ("theme", "name"), [(":root {", "light"), (':root[data-theme="dark"] {', "dark")]
)
def test_script_knows_the_text_and_the_hardest_background(theme, name):
    known = colours(theme)
    script = (STATIC / "colours.js").read_text()
    found = re.search(name + r": \{ text: \[([\d, ]+)\], ground: \[([\d, ]+)\]", script)
    assert found
    text, ground = ("#" + bytes(map(int, part.split(", "))).hex() for part in found.groups())
    assert text == known["text"]
    assert ground == min((known[b] for b in BACKGROUNDS), key=lambda b: contrast(b, text))


def test_system_dark_equals_chosen_dark():
    for name in ("base.css", "log.css", "ansi.css"):
        text = (STATIC / name).read_text()
        chosen = text.split(':root[data-theme="dark"] {', 1)[1].split("}", 1)[0]
        asked = text.split(':root:not([data-theme="light"]) {', 1)[1].split("}", 1)[0]
        assert asked.split() == chosen.split()
