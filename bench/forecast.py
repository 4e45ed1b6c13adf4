"""How good the p90 forecast is: a rolling back-test on real arrivals, against forecasts that anyone would try first.

    python -m bench.forecast                     the excerpts in bench/data/forecast
    python -m bench.forecast --clients FILE.gz   another week of clients, in the same format

Every minute a p90 of the mean rate over the next 1, 5 and 15 minutes is made from what was there by then, and judged by its
pinball loss. Baselines: last value, moving maximum (over 2, 4, 8 and 12 horizons; the best of them, known only afterwards,
counts) and seasonal naive (a day ago). Each as it is, and also with the 0.9 quantile of its own last 200 errors added: no
baseline is made weak. The clients' arrivals are drawn by chance (gamma, at each 10 minutes' rate and burstiness), for the data
holds no single requests.
"""

import argparse
import csv
import gzip
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.common import Report
from ergon.demand.forecast import Forecaster
from ergon.demand.rung import pinball
from ergon.fleet.types import ModelKey

DATA = Path(__file__).parent / "data" / "forecast"
HORIZONS = (1, 5, 15)
DAY = 1440
START = 20_000 * DAY
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One way to forecast one set: pinball loss over the mean rate, weighted by traffic and by stream; coverage likewise."""

    by_traffic: float
    by_stream: float
    coverage: float
    coverage_by_stream: float


def requests_a_minute(path: Path) -> Floats:
    """One stream, requests per second by minute."""
    with path.open() as lines:
        return np.array([[int(row["requests"]) / 60 for row in csv.DictReader(lines)]])


def clients(path: Path, seed: int) -> Floats:
    """Streams of requests per second by minute, drawn from rates and burstiness by 10 minutes."""
    chance = np.random.default_rng(seed)
    windows: dict[int, dict[int, tuple[float, float]]] = {}
    with gzip.open(path, "rt") as lines:
        for row in csv.DictReader(lines):
            place = int(float(row["time_s"]) // 600)
            windows.setdefault(int(row["client"]), {})[place] = (float(row["requests_per_s"]), float(row["cv"] or 1))
    minutes = 10 * (1 + max(place for client in windows.values() for place in client))
    rates = np.zeros((len(windows), minutes))
    for stream, client in zip(rates, windows.values(), strict=True):
        for place, (rate, burstiness) in client.items():
            stream[10 * place : 10 * place + 10] = _ten_minutes(chance, rate * 600, burstiness) / 60
    return rates


def _ten_minutes(chance: np.random.Generator, requests: float, burstiness: float) -> Floats:
    count = max(1, round(requests))
    if count > 20_000:  # by the central limit theorem of renewals
        counts = np.maximum(0, chance.normal(count / 10, burstiness * math.sqrt(count / 10), 10))
        return np.asarray(counts * count / counts.sum())
    shape = 1 / max(burstiness, 0.05) ** 2
    gaps = chance.gamma(shape, 1 / shape, count) + 1e-9
    times = (np.cumsum(gaps) - gaps[0] * chance.uniform()) / gaps.sum() * 600
    return np.histogram(np.clip(times, 0, 599.999), 10, (0, 600))[0].astype(float)


def ours(rates: Floats) -> dict[int, Floats]:
    """The p90s said after each minute, by horizon, through the same calls as the operator's."""
    keys = [ModelKey("bench", str(number)) for number in range(len(rates))]
    forecaster = Forecaster(len(rates))
    said = {horizon: np.zeros(rates.shape) for horizon in HORIZONS}
    for minute in range(rates.shape[1]):
        begin = 60.0 * (START + minute)
        for key, rate in zip(keys, rates[:, minute], strict=True):
            forecaster.add(key, begin, begin + 60, 60 * float(rate))
        forecaster.advance(begin + 67)
        for horizon, p90 in said.items():
            p90[:, minute] = [forecaster.forecast(key, begin + 67, 60.0 * horizon).p90 for key in keys]
    return said


def trailing(rates: Floats, minutes: int) -> Floats:
    """The mean of the last minutes, of as many as there are in the beginning."""
    total = np.cumsum(np.pad(rates, ((0, 0), (1, 0))), 1)
    ends = np.arange(1, rates.shape[1] + 1)
    starts = np.maximum(0, ends - minutes)
    mean: Floats = (total[:, ends] - total[:, starts]) / (ends - starts)
    return mean


def baselines(rates: Floats, horizon: int) -> dict[str, Floats]:
    """What anyone would try first."""
    last = trailing(rates, horizon)
    found = {"last value": last}
    for windows in (2, 4, 8, 12):
        shifted = [np.pad(last, ((0, 0), (k * horizon, 0)))[:, : last.shape[1]] for k in range(windows)]
        found[f"maximum of {windows}"] = np.maximum.reduce(shifted)
    if rates.shape[1] > 2 * DAY:
        yesterday = last.copy()
        yesterday[:, DAY - horizon :] = last[:, : last.shape[1] - DAY + horizon]
        found["seasonal naive"] = yesterday
    happened = last[:, horizon:]
    for name in [name for name in found if name in ("last value", "maximum of 4", "seasonal naive")]:
        found[f"{name} + its errors"] = _with_errors(found[name], happened, horizon)
    return found


def _with_errors(points: Floats, happened: Floats, horizon: int, most: int = 200) -> Floats:
    said = points.copy()
    errors = happened - points[:, : happened.shape[1]]
    for minute in range(horizon + 1, points.shape[1]):
        known = errors[:, max(0, minute - horizon - most + 1) : minute - horizon + 1]
        rank = math.ceil(0.9 * known.shape[1]) - 1
        said[:, minute] = np.maximum(0, points[:, minute] + np.partition(known, rank, 1)[:, rank])
    return said


def judge(said: Floats, rates: Floats, horizon: int, warm: int) -> Judged:
    """The losses of a forecast made in every minute after the first `warm`."""
    happened = trailing(rates, horizon)[:, horizon + warm :]
    made = said[:, warm : rates.shape[1] - horizon]
    mean = np.maximum(rates.mean(1), 1e-12)
    loss, covered = pinball(happened, made).mean(1), (happened <= made).mean(1)
    return Judged(
        float(loss.sum() / mean.sum()),
        float((loss / mean).mean()),
        float((covered * mean).sum() / mean.sum()),
        float(covered.mean()),
    )


def measure(name: str, rates: Floats, warm: int, several_days: bool, report: Report) -> None:
    """One set at all horizons."""
    begun = time.process_time()
    said = ours(rates)
    report.figure(f"{name}: CPU a model and minute, all horizons", (time.process_time() - begun) / rates.size * 1e6, "us")
    for horizon in HORIZONS:
        mine = judge(said[horizon], rates, horizon, warm)
        others = {other: judge(points, rates, horizon, warm) for other, points in baselines(rates, horizon).items()}
        bare = {other: found for other, found in others.items() if "errors" not in other}
        where = f"{name}, {horizon} min"
        best = min(bare.values(), key=lambda found: found.by_traffic)
        limit = 0.95 if several_days and horizon == 15 else 1.02
        report.bar(f"{where}: pinball over the best baseline's", mine.by_traffic / best.by_traffic, limit, "x")
        for kind, found in (("", bare), (" + its errors", {o: f for o, f in others.items() if o not in bare})):
            streams = min(f.by_stream for f in found.values())
            traffic = min(f.by_traffic for f in found.values())
            report.figure(f"{where}: over the best baseline's{kind}, by traffic", mine.by_traffic / traffic, "x")
            report.figure(f"{where}: over the best baseline's{kind}, each stream alike", mine.by_stream / streams, "x")
        report.figure(f"{where}: coverage by traffic", 100 * mine.coverage, "%")
        report.figure(f"{where}: coverage, each stream alike", 100 * mine.coverage_by_stream, "%")
        report.details[where] = {other: vars(found) for other, found in {"ergon": mine, **others}.items()}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--clients", type=Path, default=DATA / "servegen_week1_21_clients.csv.gz", help="a week of clients")
    options.add_argument("--days", type=int, default=7, help="of that week")
    options.add_argument("--seed", type=int, default=1, help="seed of the arrivals drawn")
    options.add_argument("--cluster", default="", help="not used: no cluster is needed")
    arguments = options.parse_args()
    report = Report("forecast")
    for name in ("code", "conv"):
        measure(f"azure {name}, 1 h", requests_a_minute(DATA / f"azure-llm-2023_{name}.csv"), 5, False, report)
    week = clients(arguments.clients, arguments.seed)[:, : arguments.days * DAY]
    measure(f"servegen, {arguments.days} days, {len(week)} clients", week, 60, arguments.days > 1, report)
    report.note("an hour holds four spans of 15 minutes: figures of the Azure sets at 5 and 15 minutes say little")
    arguments.clients = arguments.clients.name
    report.finish(arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
