"""Tests which lines report errors."""

import gzip

import pytest

from tests.support.real_logs import shared_logs
from web.error_lines import MAX_ERRORS, ErrorReader

ERRORS = [
    'travis_time:end:0a:start=1\r\x1b[0K\x1b[31;1mThe command "make" exited with 2.\x1b[0m\r',
    "The command failed and exited with 1 during .",
    "Error: The command exited with status 1",
    "##[error]Process completed with exit code 1.",
    "2024-05-22T12:43:46.9626460Z ##[error]no",
    "ERROR: Job failed: exit code 127",
    "make[2]: *** [all] Error 2",
    "::error file=app.js,line=1,col=5::Missing semicolon",
    "::error::no",
    "Traceback (most recent call last):",
    'Exception in thread "main" java.lang.RuntimeException: no',
    "java.lang.NullPointerException",
    "org.opentest4j.AssertionFailedError: expected: <1>",
    "panic: runtime error: index out of range",
    "app.rb:3:in 'Object#run': undefined method (NoMethodError)",
    "thread 'main' panicked at src/main.rs:2:5:",
    "FAILED tests/test_a.py::test_b - assert 1 == 2",
    "> Task :test FAILED",
    "--- FAIL: TestX (0.00s)",
    "[INFO] BUILD FAILURE",
    "\x1b[1;31mno way\x1b[0m",
    "\x1b[31m\x1b[1mno\x1b[0m",
    "\x1b[31mERROR: test 31 failed\x1b[0m",
]
OTHERS = [
    "",
    "Done. Your build exited with 1.",
    "The command exited with 0.",
    "exit code 0",
    "Exit code: 128",
    "say ##[error]",
    "::warning::deprecated",
    "Tests run: 3, Failures: 0, Errors: 0",
    "FAILED: 0",
    "0 FAILED",
    "1 test failed to start: Failed to load class",
    "[INFO] handshakeStart method failed.",
    "Caused by: java.lang.NullPointerException",
    "\tat java.lang.Exception.x(X.java:1)",
    "catch (IOException e)",
    "see a.rb:3",
    "don't panic: it works",
    "\x1b[31mred\x1b[0m",
    "\x1b[31;1m\x1b[0m",
    "\x1b[32;1mThe command exited with 0.\x1b[0m",
]


def errors(log: bytes, size: int = 2**20) -> list[int]:
    reader = ErrorReader()
    for at in range(0, len(log), size):
        reader.feed(log[at : at + size])
    reader.end()
    return reader.lines


@pytest.mark.parametrize("line", ERRORS)
def test_lines_with_errors(line):
    log = f"one\n{line}\ntwo\n{line}".encode()
    assert errors(log) == errors(log, 7) == [1, 3]


@pytest.mark.parametrize("line", OTHERS)
def test_other_lines(line):
    assert errors(f"one\n{line}\ntwo".encode()) == []


def test_consecutive_errors_count_once_and_are_bounded():
    assert errors(b"\nFAILED a\nFAILED b\n\nFAILED c\n") == [1, 4]
    many = b"FAILED a\n\n" * (MAX_ERRORS + 10) + b"x" * 10**6
    assert errors(many) == list(range(0, 2 * MAX_ERRORS, 2))


@pytest.mark.parametrize("path", shared_logs(), ids=lambda path: path.stem)
def test_real_logs(path):
    log = gzip.decompress(path.read_bytes())
    found = errors(log)
    assert errors(log, 1653) == found
    lines = log.split(b"\n")
    # A job that passed has only printed tracebacks; of one that failed the command is found.
    if b"Your build exited with 0." in log:
        assert all(b"Exception" in lines[line] for line in found)
    for line, text in enumerate(lines):
        if b"exited with 1.\x1b" in text or b"and exited with 100 during" in text:
            assert line in found
    assert len(found) < 60
