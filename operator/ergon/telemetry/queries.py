"""Queries for the exporters that Ergon is used with: each gives the watts of accelerators or nodes as one number.

A pool's `power.prometheus.query` is any query that does; these are made to be copied. Units differ by exporter: DCGM counts
millijoules, Kepler and Triton joules, AMD's microjoules. Names of Kepler changed at 0.10, and its zones overlap: never sum them.
"""

import re

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_WINDOW = re.compile(r"[0-9]+(ms|s|m|h|d)")


def dcgm_watts(window: str = "1m", **labels: str) -> str:
    """Watts of GPUs from dcgm-exporter's energy counter (millijoules since boot), which sees what a gauge samples past.

    By UUID first: with time-slicing, releases before per-process figures repeat a GPU's value for each pod that shares it.
    """
    series = f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{_matching(labels)}"
    return f"sum(max by (UUID) (rate({series}[{_checked(window)}]))) / 1000"


def dcgm_gauge_watts(**labels: str) -> str:
    """Watts of GPUs now, where the energy counter is not exported."""
    return f"sum(max by (UUID) (DCGM_FI_DEV_POWER_USAGE{_matching(labels)}))"


def kepler_old_watts(window: str = "2m", **labels: str) -> str:
    """Watts of CPU packages and memory of nodes, Kepler up to 0.9 (joules)."""
    chosen = _matching(labels)
    parts = (f"sum(rate(kepler_node_{zone}_joules_total{chosen}[{_checked(window)}]))" for zone in ("package", "dram"))
    return " + ".join(parts)


def kepler_watts(window: str = "2m", **labels: str) -> str:
    """Watts of CPU packages and memory of nodes, Kepler from 0.10 on (joules by zone; package holds core and uncore)."""
    chosen = _matching(labels, 'zone=~"package|dram"')
    return f"sum(rate(kepler_node_cpu_joules_total{chosen}[{_checked(window)}]))"


def kepler_gpu_watts(window: str = "2m", **labels: str) -> str:
    """Watts of NVIDIA GPUs, Kepler from 0.11.4 on with `experimental.gpu.enabled`."""
    return f"sum(rate(kepler_node_gpu_joules_total{_matching(labels)}[{_checked(window)}]))"


def _matching(labels: dict[str, str], *fixed: str) -> str:
    """`{a="b"}`. Raises ValueError for a name that is no label."""
    for name in labels:
        if not _LABEL.fullmatch(name):
            raise ValueError(f"{name!r} is no label name")
    quoted = [f'{name}="{_quoted(value)}"' for name, value in labels.items()]
    return f"{{{','.join([*fixed, *quoted])}}}" if fixed or quoted else ""


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _checked(window: str) -> str:
    if not _WINDOW.fullmatch(window):
        raise ValueError(f"{window!r} is no time span; write 30s, 1m or 5m")
    return window
