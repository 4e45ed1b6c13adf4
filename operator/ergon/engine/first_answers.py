"""How long woken models took from their first server to their first answer, as gateways tell it by counters that only grow."""

from collections.abc import Iterable, Mapping

from ergon.fleet.types import ModelKey
from ergon.telemetry.gateway_page import Told


class FirstAnswers:
    """What each gateway had told at the last look, by pod."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[ModelKey, Told]] = {}

    def look(self, pages: Mapping[str, Mapping[ModelKey, Told]]) -> dict[ModelKey, float]:
        """Seconds until the first answer, of models that woke since the last look.

        Two gateways that both held requests both tell: the sooner one counts. A pod that is seen for the first time starts here,
        one whose counters fell was restarted.
        """
        found: dict[ModelKey, float] = {}
        for pod, page in pages.items():
            before = self._last.get(pod, page)
            for key, now in page.items():
                was = before.get(key, Told())
                if now.count < was.count:
                    was = Told()
                if now.count > was.count:
                    seconds = max(0.0, now.seconds - was.seconds) / (now.count - was.count)
                    found[key] = min(seconds, found.get(key, seconds))
            self._last[pod] = page
        return found

    def keep(self, pods: Iterable[str]) -> None:
        """Forget gateways that are no more."""
        there = set(pods)
        self._last = {pod: page for pod, page in self._last.items() if pod in there}
