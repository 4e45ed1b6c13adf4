"""Clients outside the cluster that ask a model through the Gateway while a test changes what serves it."""

import http.client
import json
import threading
import time
from urllib.parse import urlsplit

from tests.engine.world import World, until

BODY = json.dumps({"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [1]}]})


class Askers:
    """So many clients that ask one model, at a rate each, on kept connections, from entering to leaving."""

    def __init__(self, world: World, namespace: str, name: str, clients: int, rate: float) -> None:
        self.answered, self.failed = 0, []  # type: ignore[var-annotated]
        self._address = urlsplit(world.cluster.gateway).netloc
        self._path = f"/v2/models/{namespace}.{name}/infer"
        self._pause = 1 / rate
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self) -> "Askers":
        for thread in self._threads:
            thread.start()
        return self

    def begun(self) -> "Askers":
        """Once the first was answered; what failed before does not count, since the Gateway may not have seen the route yet."""
        until(lambda: self.answered > 0, "a first answer", 20)
        self.failed.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=20)
        due = time.monotonic()
        while not self._done.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause, time.monotonic() - 1.0)
            try:
                connection.request("POST", self._path, BODY)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{answer.status} {text[:200]!r}")
                self.answered += 1
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {error}")
                connection.close()
        connection.close()
