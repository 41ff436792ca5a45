"""Generates realistic CI logs; the same seed gives the same bytes."""

import random
from collections.abc import Callable

WORDS = ("build", "cache", "compile", "deploy", "fetch", "install", "link", "lint", "pack", "test")
FILES = ("api", "core", "db", "http", "log", "queue", "router", "schema", "store", "worker")
MULTIBYTE = (
    "テストに合格しました (日本語)",
    "构建成功 正在上传产物",
    "Prüfung läuft … naïve façade déjà vu",
    "🚀 deployed 👩‍💻🧪✅",
    "Тесты пройдены успешно",
)
CLEAR = "\r\x1b[0K"

Maker = Callable[[random.Random], str]


def fleet(seed: int, jobs: int) -> list[tuple[str, bytes]]:
    """Generate `jobs` logs as (name, bytes), from a few hundred bytes to about 1 MB.

    Seven jobs cover all kinds: colours and folds, progress bars, multi-byte text, NUL bytes, a
    long line, a very short log and a large one.
    """
    rng = random.Random(seed)  # noqa: S311 - not a secret
    kinds = list(KINDS)
    chosen = (kinds * (jobs // len(kinds) + 1))[:jobs]
    return [(f"{kind}-{index}", KINDS[kind](rng).encode()) for index, kind in enumerate(chosen)]


def _fold(rng: random.Random, name: str, lines: list[str]) -> str:
    timer = f"{rng.getrandbits(32):08x}"
    start = rng.randrange(10**18, 2 * 10**18)
    took = rng.randrange(10**7, 10**10)
    return (
        f"travis_fold:start:{name}{CLEAR}travis_time:start:{timer}{CLEAR}"
        f"\x1b[33;1m$ {name.replace('.', ' ')}\x1b[0m\r\n"
        + "".join(f"{line}\r\n" for line in lines)
        + f"travis_time:end:{timer}:start={start},finish={start + took},duration={took}{CLEAR}"
        f"travis_fold:end:{name}{CLEAR}"
    )


def _line(rng: random.Random) -> str:
    file = f"{rng.choice(FILES)}/{rng.choice(FILES)}_test.py"
    colour, verdict = rng.choice(((32, "PASSED"), (32, "PASSED"), (33, "SKIPPED"), (31, "FAILED")))
    return f"{file}::test_{rng.choice(WORDS)}_{rng.randrange(1000)} \x1b[{colour}m{verdict}\x1b[0m"


def _suite(rng: random.Random, lines: int) -> str:
    folds: list[str] = []
    while lines > 0:
        size = min(lines, rng.randrange(5, 60))
        name = f"{rng.choice(WORDS)}.{len(folds) + 1}"
        folds.append(_fold(rng, name, [_line(rng) for _ in range(size)]))
        lines -= size
    exit_code = rng.choice((0, 0, 1))
    return "".join(folds) + f"\r\nDone. Your build exited with {exit_code}.\r\n"


def _folds(rng: random.Random) -> str:
    return _suite(rng, rng.randrange(100, 1500))


def _progress(rng: random.Random) -> str:
    bars = []
    for _ in range(rng.randrange(2, 12)):
        name = f"{rng.choice(WORDS)}-{rng.randrange(100)}.tar.gz"
        for percent in range(101):
            bar = "#" * (percent // 4)
            bars.append(f"\r{name} [{bar:<25}] {percent:3d}%")
        bars.append("\r\n")
    return _fold(rng, "download", ["".join(bars)]) + _suite(rng, 40)


def _multibyte(rng: random.Random) -> str:
    return _fold(rng, "locale", [rng.choice(MULTIBYTE) for _ in range(rng.randrange(100, 2000))])


def _nul(rng: random.Random) -> str:
    dump = ["\0" * rng.randrange(1, 64) + rng.choice(WORDS) for _ in range(200)]
    return _suite(rng, 60) + _fold(rng, "core.dump", dump)


def _long_line(rng: random.Random) -> str:
    words = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(10_000, 40_000)))
    return _suite(rng, 20) + words + "\r\n"


def _short(rng: random.Random) -> str:
    return _suite(rng, rng.randrange(1, 4))


def _large(rng: random.Random) -> str:
    return _suite(rng, rng.randrange(10_000, 14_000))


KINDS: dict[str, Maker] = {
    "folds": _folds,
    "progress": _progress,
    "multibyte": _multibyte,
    "nul": _nul,
    "long-line": _long_line,
    "short": _short,
    "large": _large,
}
