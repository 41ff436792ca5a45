"""The base of all settings groups; every field of a group states its unit."""

from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr

MIB = 1024 * 1024


class Group(BaseModel):
    """Base of all groups: immutable, unknown names are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


CA_FILE = (
    "PEM file of CA certificates to verify the server with; unset: the system's CA certificates"
)


def _one_per_host(url: str, scheme: str) -> list[str]:
    """The URL once for each host that it names; only URLs of Postgres may name several."""
    before, slashes, after = url.partition("//")
    place, slash, rest = after.partition("/")
    login, at, hosts = place.rpartition("@")
    if scheme != "postgresql":
        return [url]
    return [f"{before}{slashes}{login}{at}{host}{slash}{rest}" for host in hosts.split(",")]


def url_of(*schemes: str) -> AfterValidator:
    """A validator for URLs of these schemes; errors do not quote the URL, as it holds secrets."""

    def check(url: SecretStr | str) -> SecretStr | str:
        text = url.get_secret_value() if isinstance(url, SecretStr) else url
        try:
            is_url = all(
                parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
                for parts in map(urlsplit, _one_per_host(text, schemes[0]))
            )
        except ValueError:
            is_url = False
        if not is_url:
            raise ValueError(
                f"not a URL of the form {schemes[0]}://user:password@host:port/; "
                "write / # ? @ and : in a password as %2F %23 %3F %40 and %3A"
            )
        return url

    return AfterValidator(check)
