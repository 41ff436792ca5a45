"""The command line: help, one-line errors, exit codes."""

import io
import json
import os
import socket
import time

import click
import jwt
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from rich.console import Console

from logflume.domain import MAX_JOB_ID
from logflume_cli.devstack.stack import Status
from logflume_cli.duration import Duration
from logflume_cli.main import COMMANDS, root
from logflume_cli.stack import _table
from tests.support import processes
from tests.support.processes import LOGFLUME, Done, on_terminal


@pytest.fixture
def run(tmp_path):
    """Run `logflume` in a subprocess without a local stack."""
    folder = {"LOGFLUME_STACK__DATA_DIR": str(tmp_path / "none")}
    return lambda *arguments, **environment: processes.run(
        LOGFLUME, *arguments, env={**os.environ, **folder, **environment}
    )


def is_one_clear_line(done: Done, *words: str) -> bool:
    lines = done.stderr.strip().splitlines()
    return done.returncode == 1 and len(lines) == 1 and all(word in lines[0] for word in words)


def test_help_lists_every_command_and_how_to_start(run):
    done = run("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    assert "stack up" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    done = CliRunner().invoke(root, [name, "--help"])
    assert done.exit_code == 0
    assert done.output.startswith("Usage: ")


def test_config_shows_the_host_and_user_of_a_url(run):
    dsn = {"LOGFLUME_TELEMETRY__SENTRY_DSN": "https://hush@sentry.example/1"}
    done = run("config", **NOWHERE, **dsn)
    shown = json.loads(done.stdout)
    assert shown["amqp"]["url"] == "amqp://me:**********@127.0.0.1:1/"
    assert shown["database"]["url"] == "postgresql://me:**********@127.0.0.1:1/db"
    assert shown["telemetry"]["sentry_dsn"] == "https://**********@sentry.example/1"
    assert "hush" not in done.stdout


def test_a_commands_text_does_not_control_the_terminal():
    hostile = "no \x1b]0;title\x07\x9b2J\u202efile"
    printed = on_terminal(LOGFLUME, "publish", hostile)
    assert "no \\x1b]0;title\\x07\\x9b2J\\u202efile" in printed
    assert printed.isascii() and "\x1b" not in printed


def test_the_status_of_the_stack_fits_a_terminal_of_80_columns(tmp_path):
    log = tmp_path / ("long" * 30) / "rabbitmq.log"
    printed = io.StringIO()
    console = Console(file=printed, width=80)
    console.print(_table([Status("rabbitmq", "running", 4_194_304, 65535, log)]))
    lines = printed.getvalue().splitlines()
    assert "rabbitmq.log" in lines[3] and all(len(line) <= 80 for line in lines)


def test_config_hides_secrets(run):
    done = run("config", LOGFLUME_WEB__AUTH_TOKEN="hush" * 4)
    assert json.loads(done.stdout)["web"]["auth_token"] == "**********"
    assert "hush" not in done.stdout


NOWHERE = {
    "LOGFLUME_AMQP__URL": "amqp://me:hush@127.0.0.1:1/",
    "LOGFLUME_DATABASE__URL": "postgresql://me:hush@127.0.0.1:1/db",
    "LOGFLUME_TEMPORAL__ADDRESS": "127.0.0.1:1",
}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["drain"], ["Postgres at 127.0.0.1:1"]),
        (["web"], ["Postgres at 127.0.0.1:1"]),
        (["worker"], ["Temporal at 127.0.0.1:1"]),
        (["schedules", "apply"], ["Temporal at 127.0.0.1:1"]),
        (["backfill", "status"], ["Temporal at 127.0.0.1:1"]),
        (["show", "1"], ["Postgres at 127.0.0.1:1"]),
        (["db", "deploy"], ["sqitch deploy failed"]),
        (["publish", __file__], ["RabbitMQ"]),
        (["stack", "status"], ["stack up"]),
        (["publish", "no/such/file"], ["no/such/file"]),
        (["publish", "--job-id", str(MAX_JOB_ID), __file__, __file__], ["2 job ids"]),
    ],
)
def test_an_unreachable_component_is_one_line_without_secrets(run, command, words):
    done = run(*command, **NOWHERE)
    assert is_one_clear_line(done, *words), done.stderr
    assert "hush" not in done.stderr


def test_a_wrong_setting_is_one_line(run):
    done = run("drain", LOGFLUME_DRAIN__PREFETCH="1")
    assert is_one_clear_line(done, "LOGFLUME_DRAIN", "prefetch 1 is less"), done.stderr


def test_an_unknown_queue_or_component_is_a_usage_error(run):
    for command in (["worker", "--queues", "nope"], ["stack", "up", "nope"]):
        is_one_usage_error(run(*command), "nope")


def is_one_usage_error(done: Done, *words: str) -> None:
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert all(word in done.stderr for word in words)


def test_bad_input_is_one_line_and_exit_code_2(run):
    for command, word in {
        ("logs", "9" * 20): "not a job id",
        ("publish", "--job-id", "-1", __file__): "not a job id",
        ("logs", "1", "--grep", "("): "not a regular expression",
        ("logs", "1", "--tail", "x"): "not a valid integer",
        ("logs", "1", "--follow", "--attempt", "a"): "exclude each other",
        ("logs",): "JOB_ID",
        ("nope",): "No such command",
        ("show", "1", "--nope"): "No such option",
    }.items():
        is_one_usage_error(run(*command), word)
    assert "Usage: logflume" in run().stderr


def test_share_prints_a_signed_link_without_its_secret(run):
    secret = "s" * 32
    web = {"LOGFLUME_WEB__URL": "https://logs.example", "LOGFLUME_WEB__LINK_SECRET": secret}
    done = run("share", "42", "--for", "1h", **web)
    assert done.stdout.startswith("https://logs.example/jobs/42?share=ey")
    assert secret not in done.stdout + done.stderr
    assert is_one_clear_line(run("share", "42", LOGFLUME_WEB__LINK_SECRET=secret), "WEB__URL")
    assert is_one_clear_line(run("share", "42", LOGFLUME_WEB__URL="http://x"), "LINK_SECRET")
    assert is_one_clear_line(run("share", "42", LOGFLUME_WEB__LINK_SECRET="short"), "32")
    assert run("share", "42", "--for", "0m", **web).returncode == 2
    for wrong in ("0m", "1x", "-1h", "400d", "h"):
        with pytest.raises(click.BadParameter):
            Duration().convert(wrong, None, None)


def test_a_token_needs_the_key_that_the_web_trusts(run):
    def pem(key: rsa.RSAPrivateKey, *, public: bool) -> str:
        encoding = serialization.Encoding.PEM
        if public:
            format_ = serialization.PublicFormat.SubjectPublicKeyInfo
            return key.public_key().public_bytes(encoding, format_).decode()
        private, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return key.private_bytes(encoding, private, no_password).decode()

    ours, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    name, public = "LOGFLUME_WEB__JWT_PRIVATE_KEY", "LOGFLUME_WEB__JWT_PUBLIC_KEY"
    trusted = {public: pem(ours, public=True)}
    assert is_one_clear_line(run("token", "42"), name, "not set")
    assert is_one_clear_line(run("token", "42", **{name: "x"}), name, "PEM")
    wrong = {name: pem(other, public=False), **trusted}
    assert is_one_clear_line(run("token", "42", **wrong), name, "does not belong")
    done = run("token", "42", **{name: pem(ours, public=False).replace("\n", "\\n"), **trusted})
    claims = jwt.decode(done.stdout.strip(), ours.public_key(), ["RS512"])
    assert claims["sub"] == "42" and 86_000 < claims["exp"] - time.time() < 86_401


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_generated(run, shell):
    done = run(_LOGFLUME_COMPLETE=f"{shell}_source")
    assert done.returncode == 0
    assert "_LOGFLUME_COMPLETE" in done.stdout and "logflume" in done.stdout


def test_commands_and_options_are_completed(run):
    def completed(words: str) -> set[str]:
        done = run(
            _LOGFLUME_COMPLETE="bash_complete",
            COMP_WORDS=words,
            COMP_CWORD=str(len(words.split(" ")) - 1),
        )
        return {line.partition(",")[2] for line in done.stdout.splitlines()}

    assert completed("logflume lo") == {"logs"}
    assert completed("logflume logs --") >= {"--follow", "--tail"}
    assert completed("logflume list --phase st") == {"stuck"}


def test_doctor_reports_every_failed_check(run):
    done = run("doctor", **NOWHERE)
    assert done.returncode == 1
    for name in ("rabbitmq", "postgres", "temporal", "schedules", "archive", "web token"):
        assert name in done.stdout
    assert "hush" not in done.stdout + done.stderr


def test_a_taken_port_is_one_line(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("web", LOGFLUME_WEB__PORT=port)
    assert is_one_clear_line(done, port, "LOGFLUME_WEB__PORT"), done.stderr
