"""Which API server a process talks to and who it is there, by `kubernetes.aio`; what is wrong with a kubeconfig is one line."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, kube_config, load_incluster_config, load_kube_config

from ergon.kube.errors import KubeError

_HOME_CONFIG = str(Path("~/.kube/config").expanduser())


async def load_configuration(kubeconfig: Path | None = None, context: str | None = None) -> Configuration:
    """How to reach the API server: the given file, else KUBECONFIG, else the pod's own account, else ~/.kube/config.

    Raises KubeError in one line where none of them is usable.
    """
    configuration = Configuration()
    configuration.client_session_kwargs = {"trust_env": False}
    path = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG", "")
    in_cluster = not path and not context and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    path = path or _HOME_CONFIG
    try:
        if in_cluster:
            load_incluster_config(client_configuration=configuration)
        else:
            with _told() as troubles:
                await load_kube_config(
                    config_file=path, context=context, client_configuration=configuration, persist_config=False
                )
            if troubles and not (configuration.api_key or configuration.cert_file):
                raise _unusable(f"{path} gives no credentials, {troubles[-1]}")
    except (ConfigException, OSError, ValueError) as error:
        raise _unusable(str(error)) from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:  # what the library makes of a file that is none
        raise _unusable(f"{path} is not a kubeconfig") from error
    return configuration


def _unusable(why: str) -> KubeError:
    return KubeError("connect", f"no usable Kubernetes configuration: {' '.join(why.split())}; set KUBECONFIG or pass --context")


class _Troubles(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


@contextlib.contextmanager
def _told() -> Iterator[list[str]]:
    """What the library logs as errors meanwhile: that a plugin for credentials is missing or fails, it tells in no other way."""
    logger, troubles = logging.getLogger(kube_config.__name__), _Troubles()
    propagates = logger.propagate
    logger.addHandler(troubles)
    logger.propagate = False
    try:
        yield troubles.told
    finally:
        logger.propagate = propagates
        logger.removeHandler(troubles)
