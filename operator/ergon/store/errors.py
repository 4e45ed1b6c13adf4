"""The errors of this room, and rclone's error texts told as one of them."""

import re
from collections.abc import Iterable
from urllib.parse import quote

_TEXT_CHARACTERS = 300


class StoreError(Exception):
    """What every error of this room is. The text is one line for a person and holds no secret."""


class SourceInvalid(StoreError):
    """A source that cannot be understood, or whose content is not what it must be. Its owner has to change it."""


class SourceNotAllowed(StoreError):
    """A source that is understood but refused: an address, a path or a scheme that this installation does not allow."""


class SourceNotFound(StoreError):
    """Nothing lies at the URI: no such bucket, container, directory or page."""


class AccessDenied(StoreError):
    """The source refuses the credentials, or asks for some where none were given."""


class ModelDirectoryInvalid(SourceInvalid):
    """What was fetched is not a Triton model directory; the text says what is missing."""


class DiskFull(StoreError):
    """The server's model volume has no room left."""


class FetchFailed(StoreError):
    """A fetch failed for another reason: often the network. Trying again may help."""


class JobLost(StoreError):
    """rclone no longer knows this fetch: it was restarted, or the fetch ended more than a minute ago. Fetch again."""


class StoreUnavailable(StoreError):
    """rclone beside this server does not answer, or refuses the operator's credentials."""


class CommandFailed(StoreError):
    """rclone answered a command on its own volume with an error that none of the others describes."""


_DENIED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|AuthenticationFailed|AuthorizationFailure"
    r"|AuthenticationRequired|NoAuthenticationInformation|invalid_grant|Unauthorized|Forbidden"
    r"|(status ?code|HTTP error|response|error):? ?40[13]\b|cannot parse account key|couldn't parse .*credential",
    re.IGNORECASE,
)
_MISSING = re.compile(
    r"NoSuchBucket|NoSuchKey|ContainerNotFound|BlobNotFound|(directory|object|bucket) (not found|doesn't exist|does not exist)"
    r"|no such file or directory|status ?code:? 404|404 Not Found",
    re.IGNORECASE,
)
_UNREADABLE = re.compile("permission denied", re.IGNORECASE)
_NO_ROOM = re.compile(r"no space left on device|disk quota exceeded|file too big for remaining disk space", re.IGNORECASE)


def source_error(text: str, *, uri: str, secret_name: str | None, secrets: Iterable[str]) -> StoreError:
    """What rclone says about a source, as the error that tells a person what to do about it."""
    clean = one_line(text, secrets)
    if _NO_ROOM.search(text):
        return DiskFull(f"{uri}: the server's model volume is full ({clean}); give the pool more disk or it fewer models")
    if _UNREADABLE.search(text) and uri.startswith("file:"):
        what = "the store's user may not read it; make it readable to all (chmod -R a+rX)"
        return AccessDenied(f"{uri}: {what} ({clean})")
    if _DENIED.search(text) or _UNREADABLE.search(text):
        cause = f"correct the Secret {secret_name}" if secret_name else "name a Secret with credentials in secretName"
        return AccessDenied(f"{uri}: access denied ({clean}); {cause}")
    if is_missing(text):
        return SourceNotFound(f"{uri}: nothing is there ({clean}); check the bucket and the path")
    return FetchFailed(f"{uri}: {clean}")


def is_missing(text: str) -> bool:
    """Whether rclone says that a file or directory is not there."""
    return _MISSING.search(text) is not None


def volume_error(text: str) -> StoreError:
    """What rclone says about its own volume."""
    clean = one_line(text, ())
    if _NO_ROOM.search(text):
        return DiskFull(f"the server's model volume is full ({clean})")
    return CommandFailed(f"the model store answers: {clean}")


def one_line(text: str, secrets: Iterable[str]) -> str:
    """A text without secrets, without URL queries (they may carry signatures), on one line of bounded length."""
    forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""))}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    text = re.sub(r"(https?://[^\s?\"']+)\?[^\s\"']*", r"\1", text)
    text = " ".join(text.split())
    return text if len(text) <= _TEXT_CHARACTERS else text[: _TEXT_CHARACTERS - 1] + "…"
