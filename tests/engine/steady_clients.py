"""Steady clients of one model, run inside the cluster's network: kept-alive HTTP and a gRPC channel, until standard input ends.

Prints `asking` once the first requests were answered, and at the end the counts as JSON.
"""

import http.client
import json
import sys
import threading
import time
from typing import Any

import numpy as np
import tritonclient.grpc as triton

PAUSE_SECONDS = 0.01
SHOWN = 5


class Steady(threading.Thread):
    """One client that asks again and again; a connection that the server closed between requests is made anew, as clients do."""

    def __init__(self, namespace: str, name: str) -> None:
        super().__init__(daemon=True)
        self.host, self.served = f"{name}.{namespace}", f"{namespace}.{name}"
        self.answered, self.failed = 0, []  # type: ignore[var-annotated]
        self.first, self.done = threading.Event(), threading.Event()

    def run(self) -> None:
        """Until told to end."""
        while not self.done.is_set():
            try:
                self.ask()
                self.answered += 1
                self.first.set()
            except Exception as error:
                if len(self.failed) < SHOWN:
                    self.failed.append(f"{time.time():.1f} {type(error).__name__}: {error}")
            time.sleep(PAUSE_SECONDS)

    def ask(self) -> None:
        """One request. Raises where it is not answered well."""
        raise AssertionError


class Http(Steady):
    """Kept-alive HTTP."""

    connection: http.client.HTTPConnection | None = None

    def ask(self) -> None:
        """One request on the kept connection."""
        body = json.dumps({"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [1]}]})
        fresh = self.connection is None
        connection = self.connection = self.connection or http.client.HTTPConnection(self.host, 8000, timeout=10)
        try:
            connection.request("POST", f"/v2/models/{self.served}/infer", body)
            answer = connection.getresponse()
            text = answer.read()
        except (ConnectionError, http.client.RemoteDisconnected):
            connection.close()
            self.connection = None
            if fresh:
                raise
            return self.ask()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {text[:200]!r}")
        return None


class Grpc(Steady):
    """One gRPC channel."""

    def __init__(self, namespace: str, name: str) -> None:
        super().__init__(namespace, name)
        self.client = triton.InferenceServerClient(f"{self.host}:8001")
        self.tensor = triton.InferInput("X", [1, 1], "FP32")
        self.tensor.set_data_from_numpy(np.ones((1, 1), dtype=np.float32))

    def ask(self) -> None:
        """One request on the channel."""
        self.client.infer(self.served, [self.tensor], client_timeout=10)


def main() -> None:
    """Run both until standard input ends."""
    clients: dict[str, Any] = {"http": Http(*sys.argv[1:3]), "grpc": Grpc(*sys.argv[1:3])}
    for client in clients.values():
        client.start()
    for client in clients.values():
        client.first.wait(30)
    print("asking", flush=True)
    sys.stdin.read()
    for client in clients.values():
        client.done.set()
    for client in clients.values():
        client.join(15)
    print(json.dumps({kind: {"answered": c.answered, "failed": c.failed} for kind, c in clients.items()}))


if __name__ == "__main__":
    main()
