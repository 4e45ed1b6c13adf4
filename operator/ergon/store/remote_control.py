"""rclone's remote control: one HTTPS POST a command, one GET to read a file.

rclone's error answers repeat the whole input, credentials included: only their `error` text ever leaves this file.
"""

import asyncio
import base64
import ssl
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from ergon.store.errors import CommandFailed, StoreUnavailable

_TEXT_LIMIT_BYTES = 1 << 20
# No limit of aiohttp's own on the whole: where it runs out in the moment in which the caller is cancelled, it swallows that.
_CONNECT = aiohttp.ClientTimeout(total=None, sock_connect=5.0)


class CommandRefused(Exception):
    """rclone's own error text for a command, with its HTTP status; not yet cleaned of secrets, so it stays in this room."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__("rclone refused a command")
        self.status = status
        self.text = text


class RemoteControl:
    """A session with one `rclone rcd`. Raises CommandRefused and StoreUnavailable, nothing else."""

    def __init__(self, address: str, user: str, password: str, ca_pem: str) -> None:
        self.address = address
        context = ssl.create_default_context(cadata=ca_pem)
        # Pods have addresses that no certificate names; it is the pool's own certificate that is trusted, and no other.
        context.check_hostname = False
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"},
            connector=aiohttp.TCPConnector(ssl=context, limit=16),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the session and its connections."""
        await self._session.close()

    async def call(self, command: str, seconds: float, **parameters: Any) -> dict[str, Any]:
        """Run one command and return its answer, waiting at most `seconds`."""
        url = URL(f"https://{self.address}/{command}")
        try:
            async with asyncio.timeout(seconds), self._session.post(url, json=parameters, timeout=_CONNECT) as response:
                answer = await self._read_json(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error, seconds) from None
        if response.status != 200:
            raise CommandRefused(response.status, str(answer.get("error", f"HTTP {response.status}")))
        return answer

    async def read_text(self, fs: str, path: str, seconds: float) -> str:
        """The text of one file of at most 1 MiB. Raises CommandFailed for a bigger one or one that is not UTF-8."""
        url = URL(f"https://{self.address}/%5B{quote(fs)}%5D/{quote(path)}", encoded=True)
        try:
            async with asyncio.timeout(seconds), self._session.get(url, timeout=_CONNECT) as response:
                if response.status != 200:
                    answer = await self._read_json(response)
                    raise CommandRefused(response.status, str(answer.get("error", f"HTTP {response.status}")))
                content = await _read_at_most(response, _TEXT_LIMIT_BYTES + 1)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error, seconds) from None
        if len(content) > _TEXT_LIMIT_BYTES:
            raise CommandFailed(f"{path} is bigger than 1 MiB")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise CommandFailed(f"{path} is not UTF-8 text") from None

    async def _read_json(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        if response.status == 401:
            raise StoreUnavailable(
                f"rclone at {self.address} refuses the operator's credentials; restart the pod with the same ones"
            )
        try:
            answer = await response.json()
        except (aiohttp.ContentTypeError, ValueError):
            raise StoreUnavailable(f"what answers at {self.address} is not rclone's remote control") from None
        return answer if isinstance(answer, dict) else {}

    def _unavailable(self, error: Exception, seconds: float) -> StoreUnavailable:
        if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError | aiohttp.ClientSSLError):
            return StoreUnavailable(f"rclone at {self.address} shows a certificate that is not the pool's")
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            return StoreUnavailable(f"rclone at {self.address} does not answer within {seconds:g} s")
        return StoreUnavailable(f"rclone at {self.address} does not answer ({type(error).__name__})")


async def _read_at_most(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    content = bytearray()
    while len(content) < limit_bytes:
        chunk = await response.content.read(limit_bytes - len(content))
        if not chunk:
            break
        content += chunk
    return bytes(content)
