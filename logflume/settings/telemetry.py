"""Settings of log lines, metrics, health, traces and error reports."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from logflume.settings.group import Group, url_of


class TelemetrySettings(Group):
    """Logs, metrics, health, traces and error reports of the processes."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="minimum level of log lines"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="format of log lines; auto: console on a terminal, otherwise JSON"
    )
    host: str = Field(
        "127.0.0.1", description="address of `/metrics` and `/health`, for operators only"
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="their port, different for each process on a host; unset: not served, except "
        "by the web, on its own port",
    )
    otlp_endpoint: Annotated[str, url_of("http", "https")] | None = Field(
        None,
        description="URL of an OTLP/HTTP collector, e.g. `http://localhost:4318`; needs the extra "
        "`logflume[otel]`; unset: no traces",
    )
    otlp_headers: SecretStr | None = Field(
        None, description="headers for the collector, as `name=value,name=value`"
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="share of logs to trace; set the same for all processes"
    )
    sentry_dsn: Annotated[SecretStr, url_of("https", "http")] | None = Field(
        None,
        description="DSN of the Sentry project for errors; needs the extra `logflume[sentry]`; "
        "unset: errors are not reported",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _no_password_in_the_url(cls, url: str | None) -> str | None:
        if url and "@" in url:
            raise ValueError("the URL must not contain a password: set OTLP_HEADERS")
        return url
