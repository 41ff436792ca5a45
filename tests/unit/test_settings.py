"""Settings: sources, validation and secrets."""

import json

import pytest

from logflume.errors import SettingsError
from logflume.settings import Settings, load_settings
from logflume_cli.options import lifecycle_options


@pytest.fixture(autouse=True)
def _no_stack(monkeypatch, tmp_path):
    monkeypatch.setenv("LOGFLUME_STACK__DATA_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LOGFLUME_DRAIN__PREFETCH", "many", "LOGFLUME_DRAIN__PREFETCH"),
        ("LOGFLUME_DRAIN__PREFETCH", "10", "prefetch 10 is less than batch_parts"),
        ("LOGFLUME_DRAIN__PREFECTH", "10", "LOGFLUME_DRAIN__PREFECTH"),
        ("LOGFLUME_DRIAN__PREFETCH", "10", "unknown settings group 'drian'"),
        ("LOGFLUME_S3__ACCESS_KEY", "key", "access_key and secret_key belong together"),
        ("LOGFLUME_AMQP__URL", "http://u:hush@h/", "LOGFLUME_AMQP__URL: not a URL"),
        ("LOGFLUME_AMQP__URL", "amqp://u:hu/sh@h:5/", "LOGFLUME_AMQP__URL: not a URL"),
        ("LOGFLUME_DATABASE__URL", "postgresql://u:hu#sh@h/", "DATABASE__URL: not a URL"),
        ("LOGFLUME_DATABASE__URL", "postgresql://u@h/d?password=hush", "before the host"),
        ("LOGFLUME_S3__ENDPOINT", "nowhere", "LOGFLUME_S3__ENDPOINT: not a URL"),
        ("LOGFLUME_S3__ENDPOINT", "https://k:hush@h/", "set ACCESS_KEY and SECRET_KEY"),
        ("LOGFLUME_TEMPORAL__API_KEY", "hush", "api_key require TLS: set tls"),
        ("LOGFLUME_TEMPORAL__CERT_FILE", "/file", "cert_file and key_file belong together"),
        ("LOGFLUME_WEB__TLS_KEY_FILE", "/file", "tls_cert_file and tls_key_file belong together"),
        ("LOGFLUME_DATABASE", "{bad", "database"),
        ("LOGFLUME_WEB__PORT", "70000", "LOGFLUME_WEB__PORT"),
        ("LOGFLUME_PUSHER__APP_ID", "1", "app_id, key and secret belong together"),
        ("LOGFLUME_PUSHER__SECRET", "hush", "app_id, key and secret belong together"),
        ("LOGFLUME_PUSHER__KEY", "", "LOGFLUME_PUSHER__KEY"),
        ("LOGFLUME_LIFECYCLE__SETTLE_SECONDS", "-1", "LOGFLUME_LIFECYCLE__SETTLE_SECONDS"),
        ("LOGFLUME_RETENTION__POLICIES", "old", "retention"),
        (
            "LOGFLUME_RETENTION__POLICIES",
            '[{"name": "old", "older_than_days": 0, "delete": "row"}]',
            "LOGFLUME_RETENTION__POLICIES__0__OLDER_THAN_DAYS",
        ),
        (
            "LOGFLUME_RETENTION__POLICIES",
            '[{"name": "old", "older_than_days": 1, "delete": "archive", "state": "empty"}]',
            "policy old: an empty log has no text",
        ),
        (
            "LOGFLUME_RETENTION__POLICIES",
            json.dumps([{"name": "old", "older_than_days": 1, "delete": "row"}] * 2),
            "two policies are named old",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    assert "hu" not in str(caught.value)


@pytest.mark.parametrize("app_id", ["x1", "", "1 ", "\u0661", "1\n"])
def test_a_pusher_app_id_must_be_digits(monkeypatch, app_id):
    for name, value in (("APP_ID", app_id), ("KEY", "k"), ("SECRET", "hush")):
        monkeypatch.setenv(f"LOGFLUME_PUSHER__{name}", value)
    with pytest.raises(SettingsError, match="LOGFLUME_PUSHER: app_id must be digits") as caught:
        load_settings()
    assert "hush" not in str(caught.value)


def test_the_environment_takes_precedence_over_the_stack_file(monkeypatch, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"web": {"port": 1111, "url": "u"}}))
    monkeypatch.setenv("LOGFLUME_WEB__PORT", "2222")
    web = load_settings().web
    assert (web.port, web.url) == (2222, "u")


def test_an_unreadable_stack_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(SettingsError, match=r"settings\.json"):
        load_settings()


def test_settings_can_be_in_files(monkeypatch, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"web": {"port": 1, "auth_token": "x"}}))
    for name, text in (("AUTH_TOKEN", "hush" * 4 + "\n"), ("PORT", "2222"), ("URL", "\xff")):
        (tmp_path / name).write_text(text, encoding="latin-1")
        monkeypatch.setenv(f"LOGFLUME_WEB__{name}_FILE", str(tmp_path / name))
    with pytest.raises(SettingsError, match="LOGFLUME_WEB__URL_FILE: cannot read the file"):
        load_settings()
    monkeypatch.setenv("LOGFLUME_WEB__URL_FILE", "/nonexistent")
    with pytest.raises(SettingsError, match=r"cannot read the file: .*'/nonexistent'"):
        load_settings()
    monkeypatch.delenv("LOGFLUME_WEB__URL_FILE")
    web = load_settings().web
    assert (web.auth_token.get_secret_value(), web.port) == ("hush" * 4, 2222)
    monkeypatch.setenv("LOGFLUME_WEB__PORT", "2222")
    with pytest.raises(SettingsError, match="LOGFLUME_WEB__PORT_FILE: set it or the value"):
        load_settings()


def test_secrets_are_hidden(monkeypatch):
    monkeypatch.setenv("LOGFLUME_WEB__AUTH_TOKEN", "hush" * 4)
    monkeypatch.setenv("LOGFLUME_DATABASE__URL", "postgresql://me:hush@db/x")
    settings = load_settings()
    assert "hush" not in repr(settings) + settings.model_dump_json()


def test_an_error_does_not_quote_a_secret(monkeypatch):
    monkeypatch.setenv("LOGFLUME_WEB__AUTH_TOKEN__X", "hush")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hush" not in str(caught.value)


def test_every_setting_has_a_description():
    for group in Settings.model_fields.values():
        for name, field in group.annotation.model_fields.items():
            assert field.description, name


def test_the_lifecycle_settings_are_the_workflows_options():
    lifecycle_options(load_settings())  # has no defaults of its own


# Not secret despite their names: public keys, file names and public addresses.
NOT_SECRET = {"s3.access_key", "web.jwt_public_key", "pusher.key", "temporal.ui_url", "web.url",
              "temporal.key_file", "web.tls_key_file"}  # fmt: skip


def test_settings_named_like_secrets_are_secret_types():
    for group, settings in Settings.model_fields.items():
        for name, field in settings.annotation.model_fields.items():
            words = {"secret", "key", "token", "password", "dsn", "headers", "url"}
            if words & {*name.split("_")} and f"{group}.{name}" not in NOT_SECRET:
                assert "SecretStr" in str(field.annotation), f"{group}.{name}"
