"""From a variant's source to one that can be fetched: reads its Secret, and only of the right type."""

import base64
import binascii

from ergon.engine.effects import SecretInvalid
from ergon.engine.settings import Settings
from ergon.fleet.types import ModelKey
from ergon.fleet.types import Source as SourceReference
from ergon.kube.client import KubeClient
from ergon.kube.errors import Forbidden, NotFound
from ergon.store.sources import Source, parse_source

SECRET_TYPE = "ergon.dev/source"


class SourceResolver:
    """Resolves sources. Nothing of a Secret is kept, logged or put into an error."""

    def __init__(self, client: KubeClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    async def resolve(self, key: ModelKey, source: SourceReference) -> Source:
        """The source with its credentials. Raises SecretInvalid, or what `parse_source` raises."""
        secret = await self._secret(key.namespace, source.secret_name) if source.secret_name else None
        return parse_source(
            source.uri,
            source.revision,
            secret,
            source.secret_name,
            allow_private_addresses=self._settings.allow_private_addresses,
            api_server_addresses=self._settings.api_server_addresses,
        )

    async def _secret(self, namespace: str, name: str) -> dict[str, str]:
        where = f"Secret {name} in namespace {namespace}"
        try:
            held = await self._client.get("v1", "Secret", name, namespace)
        except NotFound:
            raise SecretInvalid(f"{where} does not exist") from None
        except Forbidden:
            raise SecretInvalid(
                f"{where} may not be read by Ergon: list the namespace in the installation's sourceSecretNamespaces"
            ) from None
        if held.get("type") != SECRET_TYPE:
            raise SecretInvalid(f"{where} has type {held.get('type')}, not {SECRET_TYPE}; make it anew with that type")
        try:
            return {k: base64.b64decode(v, validate=True).decode() for k, v in (held.get("data") or {}).items()}
        except (binascii.Error, UnicodeDecodeError):
            raise SecretInvalid(f"{where} holds a value that is not text") from None
