"""A client of the real API server, and a namespace to work in, as the API's tests have them."""

from tests.api.conftest import kube, namespace

__all__ = ["kube", "namespace"]
