"""A model's source as its owner writes it, turned into the remote that rclone reads. Pure.

What is written never becomes a connection string, a flag or a path unchecked: schemes, secret keys and characters are
allow-lists, and every remote is a map of named options in which the node's own identity is switched off.
"""

import base64
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from ergon.store.addresses import host_refusal
from ergon.store.errors import SourceInvalid, SourceNotAllowed

_SECRET_KEYS = {
    "s3": ("access_key_id", "secret_access_key", "session_token", "endpoint", "region"),
    "gs": ("service_account_credentials",),
    "az": ("account", "key", "sas_url"),
    "http": ("user", "pass"),
    "https": ("user", "pass"),
    "file": (),
}
# What stands in these may be shown; everything else in a Secret may not.
_SHOWN_KEYS = {"endpoint", "region", "account", "user"}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
# Both become part of a host name.
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_PATH_CHARACTERS = 1024


@dataclass(frozen=True)
class Source:
    """Where a model directory comes from. `uri` and `secret_name` may be shown; `remote` and `secrets` hold credentials.

    `remote` are rclone's options for it; None for a `file` source, whose `path` is relative to the store's sources.
    """

    uri: str
    revision: str
    secret_name: str | None
    path: str
    remote: Mapping[str, str] | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False, default=())


@dataclass(frozen=True)
class _Written:
    """A source's parts, checked for form but not yet for what its scheme allows."""

    scheme: str
    host: str
    port: int | None
    path: str
    uri: str
    secret: Mapping[str, str]
    refuse_host: Callable[[str], str | None]

    def invalid(self, why: str) -> NoReturn:
        raise SourceInvalid(f"{self.uri}: {why}")


def parse_source(
    uri: str,
    revision: str,
    secret: Mapping[str, str] | None = None,
    secret_name: str | None = None,
    *,
    allow_private_addresses: bool = False,
    api_server_addresses: Collection[str] = (),
) -> Source:
    """The source that `uri` and the decoded data of its Secret describe.

    `allow_private_addresses` admits loopback, link-local and API-server addresses (the local cluster needs them); private
    ranges such as 10.0.0.0/8 are always admitted: stores in the cluster live there.
    Raises SourceInvalid and SourceNotAllowed, whose texts name the URI, the Secret's keys, never their values.
    """

    def refuse_host(host: str) -> str | None:
        return None if allow_private_addresses else host_refusal(host, api_server_addresses)

    written = _split(uri, secret or {}, secret_name, refuse_host)
    remote = _REMOTES[written.scheme](written)
    secrets = tuple(value for key, value in written.secret.items() if value and key not in _SHOWN_KEYS)
    return Source(uri, revision, secret_name if secret else None, written.path, remote, secrets + _derived_secrets(remote))


def _split(uri: str, secret: Mapping[str, str], name: str | None, refuse_host: Callable[[str], str | None]) -> _Written:
    if re.search(r"[\x00-\x20\x7f\\]", uri):
        raise SourceInvalid(f"{uri!r}: a URI holds no spaces, control characters or backslashes; write them percent-encoded")
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme not in _REMOTES:
        raise SourceInvalid(f"{_without_userinfo(uri)}: a source begins with one of s3:// gs:// az:// http:// https:// file://")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise SourceInvalid(f"{_without_userinfo(uri)}: not a URI") from None
    if "@" in parts.netloc:
        raise SourceInvalid(f"{_without_userinfo(uri)}: a URI holds no user or password; put them into a Secret")
    if "?" in uri or "#" in uri:
        raise SourceInvalid(f"{uri.split('?')[0].split('#')[0]}: a URI holds no query or fragment; write ? and # as %3F and %23")
    allowed = _SECRET_KEYS[scheme]
    for key in secret:
        if key not in allowed:
            takes = f"takes {', '.join(allowed)}" if allowed else "takes no Secret"
            raise SourceInvalid(f"{uri}: the Secret {name} has the key {key}, but a {scheme} source {takes}")
    clean = {key: value.strip() for key, value in secret.items()}
    host = (
        parts.hostname or "" if scheme in ("http", "https", "file") else parts.netloc
    )  # hostname is lower-cased, buckets are not
    return _Written(scheme, host, port, _decode(uri, parts.path), uri, clean, refuse_host)


def _decode(uri: str, path: str) -> str:
    """The path with each segment percent-decoded once, without leading and trailing slashes."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise SourceInvalid(f"{uri}: a % stands for itself only as %25")
    try:
        segments = [unquote(segment, errors="strict") for segment in path.strip("/").split("/")] if path.strip("/") else []
    except UnicodeDecodeError:
        raise SourceInvalid(f"{uri}: the percent-encoded bytes are not UTF-8") from None
    for segment in segments:
        if segment in ("", ".", ".."):
            raise SourceNotAllowed(f"{uri}: a path holds no empty segment, '.' or '..'")
        if re.search(r"[\x00-\x1f\x7f/\\]", segment):
            raise SourceNotAllowed(f"{uri}: a path segment holds no slash, backslash or control character, encoded or not")
    decoded = "/".join(segments)
    if len(decoded) > _PATH_CHARACTERS:
        raise SourceInvalid(f"{uri}: a path has at most {_PATH_CHARACTERS} characters")
    return decoded


def _bucket_root(source: _Written, what: str) -> str:
    """`bucket/path/`; the last slash says that it is a directory, which saves rclone asking the store whether it is a file."""
    if source.port is not None or not _BUCKET.fullmatch(source.host):
        source.invalid(f"write {source.scheme}://<{what}>/<path>")
    if not source.path:
        source.invalid(f"names a whole {what}; name the model's directory in it")
    return f"{source.host}/{source.path}/"


def _s3(source: _Written) -> dict[str, str]:
    secret = source.secret
    remote = {"type": "s3", "_root": _bucket_root(source, "bucket"), "env_auth": "false", "provider": "AWS"}
    if bool(secret.get("access_key_id")) != bool(secret.get("secret_access_key")):
        source.invalid("the Secret needs both access_key_id and secret_access_key, or neither for anonymous access")
    _check_word(source, "region", _REGION)
    if endpoint := secret.get("endpoint"):
        _check_endpoint(source, endpoint, "endpoint")
        remote |= {"provider": "Other", "force_path_style": "true"}
    return remote | {key: value for key, value in secret.items() if value}


def _gs(source: _Written) -> dict[str, str]:
    remote = {"type": "google cloud storage", "_root": _bucket_root(source, "bucket"), "env_auth": "false"}
    credentials = source.secret.get("service_account_credentials")
    if credentials:
        _check_service_account(source, credentials)
    return remote | ({"service_account_credentials": credentials} if credentials else {"anonymous": "true"})


def _az(source: _Written) -> dict[str, str]:
    secret = {key: value for key, value in source.secret.items() if value}
    remote = {"type": "azureblob", "_root": _bucket_root(source, "container"), "env_auth": "false", "use_msi": "false"}
    _check_word(source, "account", _ACCOUNT)
    if "sas_url" in secret:
        _check_endpoint(source, secret["sas_url"], "sas_url")
    elif "account" not in secret:
        source.invalid("az needs a Secret with the key sas_url, or account and key (account alone for a public container)")
    return remote | secret


def _http(source: _Written) -> dict[str, str]:
    _check_host(source, source.host)
    host = f"[{source.host}]" if ":" in source.host else source.host
    authority = host if source.port is None else f"{host}:{source.port}"
    remote = {"type": "http", "url": f"{source.scheme}://{authority}", "_root": f"{source.path}/" if source.path else ""}
    user, password = source.secret.get("user", ""), source.secret.get("pass", "")
    if not user and not password:
        return remote
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return remote | {"headers": f"Authorization,Basic {token}"}


def _file(source: _Written) -> None:
    if source.host or source.port is not None:
        source.invalid("write file:///<path>, with three slashes")
    if not source.path:
        source.invalid("names no directory below /sources")


_REMOTES: Mapping[str, Callable[[_Written], dict[str, str] | None]] = {
    "s3": _s3,
    "gs": _gs,
    "az": _az,
    "http": _http,
    "https": _http,
    "file": _file,
}


def _check_word(source: _Written, key: str, form: re.Pattern[str]) -> None:
    if (value := source.secret.get(key)) and not form.fullmatch(value):
        source.invalid(f"the Secret's {key} is not one: it matches {form.pattern}")


def _check_service_account(source: _Written, credentials: str) -> None:
    """Only a key of its own: other kinds of Google credentials name files, programs and addresses to get a token from."""
    try:
        written = json.loads(credentials)
    except ValueError:
        written = None
    if not isinstance(written, dict) or written.get("type") != "service_account":
        source.invalid("the Secret's service_account_credentials is not the JSON key file of a service account")
    if token_uri := written.get("token_uri"):
        _check_endpoint(source, str(token_uri), "token_uri")


def _check_endpoint(source: _Written, endpoint: str, key: str) -> None:
    """An address that stands in a Secret: http(s), a host, and the same rules as for one that stands in a URI."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        host, scheme, userinfo = parts.hostname, parts.scheme, "@" in parts.netloc
    except ValueError:
        host, scheme, userinfo = None, "", False
    if not host or scheme not in ("http", "https") or userinfo:
        source.invalid(f"the Secret's {key} is not an http(s) address")
    _check_host(source, host, f"the Secret's {key}")


def _check_host(source: _Written, host: str, where: str | None = None) -> None:
    if not host:
        source.invalid(f"write {source.scheme}://<host>/<path>")
    if why := source.refuse_host(host):
        raise SourceNotAllowed(f"{source.uri}: {where or 'its host ' + host} {why}")


def _derived_secrets(remote: Mapping[str, str] | None) -> tuple[str, ...]:
    """Forms in which a Secret's values appear in rclone's texts, beside the values themselves."""
    remote = remote or {}
    token = remote.get("headers", "").rpartition(" ")[2]
    signature = urlsplit(remote.get("sas_url", "")).query
    return tuple(value for value in (token, signature) if value)


def _without_userinfo(uri: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", uri)
