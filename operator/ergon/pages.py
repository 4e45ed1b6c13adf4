"""One HTTP page, read whole, within a limit of size and of time: metrics pages, and answers of Prometheus.

In: a session and a URL. Out: the status and the body, or PageError, in one line for people.
"""

import asyncio

import aiohttp
from yarl import URL

_NO_OTHER = aiohttp.ClientTimeout(total=None)
"""The time is `seconds` alone, whatever a session or aiohttp itself has as a default."""


class PageError(Exception):
    """A page cannot be had; the message says why."""


class PageTooLarge(PageError):
    """It is larger than what is read of it."""


async def read_page(session: aiohttp.ClientSession, url: str | URL, *, limit_bytes: int, seconds: float) -> tuple[int, bytes]:
    """Status and whole body; who sends a page in many pieces is waited for, `seconds` in all. Redirects are not followed.

    Raises PageError: nobody answers, not in time, or it breaks off; PageTooLarge.
    """
    try:
        async with asyncio.timeout(seconds), session.get(url, timeout=_NO_OTHER, allow_redirects=False) as answer:
            # `content.read(n)` gives what has come so far, and not n bytes.
            parts, size = [], 0
            async for part in answer.content.iter_any():
                size += len(part)
                if size > limit_bytes:
                    raise PageTooLarge(f"the answer is larger than {_size(limit_bytes)}")
                parts.append(part)
            return answer.status, b"".join(parts)
    except TimeoutError:
        raise PageError(f"no answer within {seconds:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise PageError(str(error) or type(error).__name__) from None


def _size(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes >= 1 << 20 else f"{size_bytes:,} bytes"
