"""Static files as browsers load them: one script and one style sheet per page, compressed.

The front end has no build step: the web process joins its files at startup. The name of a joined
file contains its hash, so browsers may cache it forever.
"""

import gzip
import hashlib
import re
from functools import cache
from pathlib import Path

import msgspec
from litestar import MediaType

FOLDER = Path(__file__).parent / "static"
# Fixed, because the MIME table of the system differs between machines.
TYPES = {
    ".css": "text/css",
    ".html": MediaType.HTML,
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# The forms that web/static uses, and no others.
IMPORT = re.compile(r'^import (\{[^}]+\}) from "\./([\w-]+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)
OTHER = re.compile(r"^(?:import|export)\b", re.MULTILINE)
COMMENT = re.compile(r"^\s*(?:/\*(?:(?!\*/).)*\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)
STYLES = re.compile(r'(?:<link rel="stylesheet" href="/static/[\w.-]+">\n)+')
SCRIPT = re.compile(r'<script type="module" src="/static/([\w-]+)\.js"></script>')
NAME = re.compile(r"/static/([\w.-]+)")


class File(msgspec.Struct, frozen=True):
    """A static file, held in memory: they are few and small."""

    content: bytes
    compressed: bytes
    media_type: str
    digest: str
    immutable: bool = False


@cache
def read_files(folder: Path = FOLDER) -> dict[str, File]:
    """Read the static files and join those of each page, by name."""
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.suffix in TYPES}
    files = {name: _file(name, text) for name, text in texts.items()}

    def hashed(name: str, text: str) -> str:
        """Add an immutable file and return its address."""
        file = _file(name, text, immutable=True)
        stem, suffix = name.rsplit(".", 1)
        files[f"{stem}-{file.digest}.{suffix}"] = file
        return f"/static/{stem}-{file.digest}.{suffix}"

    def style(match: re.Match[str]) -> str:
        names = NAME.findall(match[0])
        address = hashed(names[-1], "".join(COMMENT.sub("", texts[name]) for name in names))
        return f'<link rel="stylesheet" href="{address}">\n'

    def script(match: re.Match[str]) -> str:
        address = hashed(f"{match[1]}.js", join_modules(texts, match[1]))
        return f'<script type="module" src="{address}"></script>'

    def single(match: re.Match[str]) -> str:
        name = match[1]
        return match[0] if name not in texts else hashed(name, texts[name])

    for page in ("front.html", "job.html", "schema.html"):
        text = SCRIPT.sub(script, STYLES.sub(style, texts[page]))
        files[page] = _file(page, NAME.sub(single, text))
    return files


def join_modules(texts: dict[str, str], entry: str) -> str:
    """Join a module and those it imports; each becomes a function that returns its exports."""
    joined: dict[str, str] = {}

    def add(name: str) -> None:
        text = texts[f"{name}.js"]
        for _, other in IMPORT.findall(text):
            if other not in joined:
                add(other)
        names = ", ".join(name for _, name in EXPORT.findall(text))
        text = IMPORT.sub(lambda found: f"const {_destructured(found)};\n", text)
        text = COMMENT.sub("", EXPORT.sub(r"\1", text))
        if OTHER.search(text):
            raise ValueError(f"{name}.js: unknown form of import or export")
        joined[name] = f"const ${name} = (() => {{\n{text}return {{ {names} }};\n}})();\n"

    add(entry)
    return "".join(joined.values())


def _destructured(found: re.Match[str]) -> str:
    return f"{found[1].replace(' as ', ': ')} = ${found[2]}"


def _file(name: str, text: str, *, immutable: bool = False) -> File:
    content = text.encode()
    digest = hashlib.sha256(content).hexdigest()[:20]
    compressed = gzip.compress(content, mtime=0)
    return File(content, compressed, TYPES[Path(name).suffix], digest, immutable)
