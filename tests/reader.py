"""Reading objects of a real API server on one kept connection.

A test that waits asks ten times a second. A kubectl for each costs 0.09 s of CPU, so that three processes of waiting tests
would keep a machine busy; a request here costs 0.002 s.
"""

import base64
import http.client
import json
import ssl
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

Object = dict[str, Any]

_CORE = "/api/v1"
_ERGON = "/apis/ergon.dev/v1alpha1"
_PLACES = {
    "pods": _CORE,
    "services": _CORE,
    "events": _CORE,
    "serviceaccounts": _CORE,
    "namespaces": _CORE,
    "nodes": _CORE,
    "statefulsets": "/apis/apps/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "specializedmodels": _ERGON,
    "acceleratorpools": _ERGON,
    "energybudgets": _ERGON,
    "taskroutes": _ERGON,
}
_SHORT = {
    "sm": "specializedmodels",
    "ap": "acceleratorpools",
    "ebud": "energybudgets",
    "troute": "taskroutes",
    "sts": "statefulsets",
    "svc": "services",
    "netpol": "networkpolicies",
}
_REQUEST_SECONDS = 30.0


class ReadError(AssertionError):
    """The API server refused to show it, or did not answer."""


class Reader:
    """The API server that a kubeconfig names, as its user."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as identity:
            for part in ("client-certificate-data", "client-key-data"):
                identity.write(base64.b64decode(user[part]) + b"\n")
            identity.flush()
            tls.load_cert_chain(identity.name)
        self._connection = http.client.HTTPSConnection(urlsplit(cluster["server"]).netloc, timeout=_REQUEST_SECONDS, context=tls)

    def get(self, *arguments: str) -> Object | None:
        """What `kubectl get ARGUMENTS -o json` shows: KIND [NAME] [-n NAMESPACE] [-l LABELS]; a list without NAME.

        Of all namespaces where none is given. None where it is not there. Raises ReadError.
        """
        words, options = [], {}
        rest = iter(arguments)
        for word in rest:
            if word in ("-n", "-l"):
                options[word] = next(rest)
            elif word != "-A":
                words.append(word)
        plural = _plural(words[0])
        assert plural is not None, f"where {words[0]} are is not known here: add it to _PLACES"
        space = f"namespaces/{options['-n']}/" if "-n" in options else ""
        path = f"{_PLACES[plural]}/{space}{'/'.join([plural, *words[1:]])}"
        status, text = self._ask(path + (f"?labelSelector={quote(options['-l'])}" if "-l" in options else ""))
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        if status != http.HTTPStatus.OK:
            raise ReadError(f"GET {path}: {status} {text[:500]}")
        return dict(json.loads(text))

    def allowed(self, wish: Object, user: str, *groups: str) -> bool:
        """Whether the authorizer lets a user do what the resourceAttributes of a SubjectAccessReview say. Raises ReadError."""
        spec = {"user": user, "groups": list(groups), "resourceAttributes": wish}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        status, text = self._ask(path, json.dumps(review))
        if status != http.HTTPStatus.CREATED:
            raise ReadError(f"POST {path}: {status} {text[:500]}")
        return bool(json.loads(text)["status"]["allowed"])

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _ask(self, path: str, question: str | None = None) -> tuple[int, str]:
        for anew in (False, True):
            try:
                if question is None:
                    self._connection.request("GET", path)
                else:
                    self._connection.request("POST", path, question, {"Content-Type": "application/json"})
                with self._connection.getresponse() as answer:
                    return answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()  # one that was kept may have been closed meanwhile: the next request opens one
                if anew:
                    raise ReadError(f"{path}: {type(error).__name__}: {error}") from error
        raise AssertionError("unreachable")


def _plural(kind: str) -> str | None:
    return next((found for found in (_SHORT.get(kind, kind), f"{kind}s") if found in _PLACES), None)
