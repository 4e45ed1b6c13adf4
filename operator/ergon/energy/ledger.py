"""The ledger: joules by model and by pool, each in one account, each with its provenance.

For each pool: models + loading + idle + unexplained = its devices; the host and what the site adds (pue) are lines beside it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ergon.energy.accounts import Account, Provenance
from ergon.energy.ledger_state import AccountState, DeviceState, LedgerState, ModelState
from ergon.energy.meter import Believed, Finding, Metered
from ergon.energy.meters import DeviceMeters, Reading
from ergon.energy.pace import Pace
from ergon.energy.split import Split, Splitter
from ergon.fleet.types import ModelKey

MOST_GAP_SECONDS = 86_400.0
"""Of a restart: what no counter tells of a longer one is not assumed."""

KEPT_MODELS = 200
"""In the ledger's state, those that used most; the sum of the others is kept as one."""

KEPT_DEVICES = 2_000
"""In the ledger's state: a gap of further ones is assumed."""

POOL_ACCOUNTS = ("device", "idle", "loading", "models", "unexplained", "host", "overhead")


@dataclass(frozen=True, slots=True)
class ReplicaTick:
    """What a replica did in an interval. `busy_seconds`: of the server's time; two instances at once may sum to more.

    `executing_watts`: of the server's accelerators while it executes with the batch it achieved; `load_watts` while it loads.
    `work` is requests, or for generative models weighted tokens.
    """

    model: ModelKey
    busy_seconds: float
    executing_watts: float
    requests: float = 0.0
    work: float = 0.0
    loading_seconds: float = 0.0
    load_watts: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceTick:
    """A metered device in an interval: the accelerators of one server, or those of all servers of a pool behind one query.

    `expected_watts`: by profile, with what runs there (`power.device_watts`). `reading`: None where the pool's source is its
    profile; empty where the source did not answer. `replicas`: None where no statistics were read. `covers_gap`: their busy
    seconds reach back over a restart of ours, to the last state. A device that is there and does not answer is still listed.
    """

    device: str
    idle_watts: float
    expected_watts: float
    replicas: tuple[ReplicaTick, ...] | None
    reading: Reading | None = None
    nameplate_watts: float | None = None
    wraps_at_joules: float | None = None
    accelerators: int = 1
    covers_gap: bool = False


@dataclass(frozen=True, slots=True)
class PoolTick:
    """A pool in an interval. `host_watts`: of all its nodes that are on. `standing_watts`: idle watts of servers that are on and
    no device here: booting, shutting down, on nodes that stay.
    """

    pool: str
    seconds: float
    devices: tuple[DeviceTick, ...]
    host_watts: float = 0.0
    standing_watts: float = 0.0
    pue: float = 1.0


@dataclass(frozen=True, slots=True)
class Booked:
    """What was booked for a pool: joules by account, over the `seconds` before now. `watts` is its power now, all of it.

    A device whose meter is silent for a moment is booked later, for all of that time.
    """

    pool: str
    seconds: float
    device_joules: float
    idle_joules: float
    loading_joules: float
    unexplained_joules: float
    host_joules: float
    overhead_joules: float
    models: Mapping[ModelKey, float]
    assumed_joules: float
    pue: float
    watts: float
    findings: tuple[Finding, ...] = ()

    @property
    def joules(self) -> float:
        """All of it, as budgets count it: devices, host and what the site adds."""
        return math.fsum((self.device_joules, self.host_joules, self.overhead_joules))


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """A model's energy for people. `watts`, per request and per 1,000 units of work: of the last hour; `share` of all models'
    watts; `trend`: by how much of itself the last five minutes lie above the hour.
    """

    joules: float
    requests: float
    watts: float
    share: float
    joules_per_request: float | None
    joules_per_thousand_work: float | None
    trend: float | None
    provenance: Provenance


@dataclass(slots=True)
class ModelAccount:
    """A model's joules, requests and work since the ledger began."""

    joules: Account
    requests: float
    work: float
    pace: Pace


class PoolAccounts:
    """The accounts of one pool."""

    def __init__(self) -> None:
        self.device, self.idle, self.loading, self.models = Account(), Account(), Account(), Account()
        self.unexplained, self.host, self.overhead = Account(), Account(), Account()

    def add(self, booked: Booked, device_assumed: float) -> None:
        """Book an interval."""
        share = device_assumed / booked.device_joules if booked.device_joules > 0 else 0.0
        self.device.add(booked.device_joules, device_assumed)
        self.idle.add(booked.idle_joules, booked.idle_joules * share)
        self.loading.add(booked.loading_joules, booked.loading_joules * share)
        for joules in booked.models.values():
            self.models.add(joules, joules * share)
        self.unexplained.add(booked.unexplained_joules)
        self.host.add(booked.host_joules, booked.host_joules)
        self.overhead.add(booked.overhead_joules, booked.overhead_joules * share)

    def merge(self, other: "PoolAccounts") -> None:
        """Take over another's sums."""
        for name in POOL_ACCOUNTS:
            theirs: Account = getattr(other, name)
            getattr(self, name).add(theirs.joules, theirs.assumed_joules)


@dataclass(slots=True)
class _Device:
    pool: str
    meters: DeviceMeters | None
    splitter: Splitter = field(default_factory=Splitter)
    believed: Believed = field(default_factory=lambda: Believed(0.0))
    idle_watts: float = 0.0
    # What waits for the device's meter: seconds, idle joules, claims, loading joules, seconds without statistics.
    open_seconds: float = 0.0
    idle_joules: float = 0.0
    claims: dict[ModelKey, float] = field(default_factory=dict)
    loading_joules: float = 0.0
    unseen_seconds: float = 0.0


class Ledger:
    """All accounts of the operator. Bounded by what there is: models, pools and devices that are gone keep only their sum."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolAccounts] = {}
        self.models: dict[ModelKey, ModelAccount] = {}
        self.gone_models = Account()
        self.gone_pools = PoolAccounts()
        self._devices: dict[str, _Device] = {}
        self._gaps: dict[str, float] = {}
        self._clock_seconds = 0.0

    def record(self, ticks: Sequence[PoolTick]) -> list[Booked]:
        """Book an interval of every pool there is. Devices that are no longer listed are closed."""
        self._clock_seconds += max((tick.seconds for tick in ticks), default=0.0)
        return [self._record(tick) for tick in ticks]

    def forget(self, models: Collection[ModelKey], pools: Collection[str]) -> list[Booked]:
        """Of models and pools that are not among these only the sum is kept. Returns what was still to be booked of them."""
        booked = []
        for key in [key for key in self.models if key not in models]:
            account = self.models.pop(key).joules
            self.gone_models.add(account.joules, account.assumed_joules)
        for name in [name for name in self.pools if name not in pools]:
            booked.append(self._record(PoolTick(name, 0.0, ())))
            self.gone_pools.merge(self.pools.pop(name))
        return booked

    def figures(self) -> dict[ModelKey, ModelFigures]:
        """Every model's energy for people."""
        now = self._clock_seconds
        watts = {key: account.pace.long.watts(now) for key, account in self.models.items()}
        total = math.fsum(watts.values())
        return {key: _figures(self.models[key], watts[key], total, now) for key in self.models}

    def to_state(self, wall_seconds: float) -> LedgerState:
        """What another process needs to go on from here (seconds since the epoch)."""
        most = sorted(self.models.items(), key=lambda item: (-item[1].joules.joules, item[0]))
        others = Account(self.gone_models.joules, self.gone_models.assumed_joules)
        for _, model in most[KEPT_MODELS:]:
            others.add(model.joules.joules, model.joules.assumed_joules)
        return LedgerState(
            wall_seconds=wall_seconds,
            pools={name: _pool_state(accounts) for name, accounts in self.pools.items()},
            gone_pools=_pool_state(self.gone_pools),
            models=tuple(_model_state(key, model) for key, model in most[:KEPT_MODELS]),
            other_models=_state(others),
            devices={
                name: DeviceState(
                    pool=device.pool,
                    meters=device.meters.to_state() if device.meters is not None else None,
                    split=device.splitter.to_state(),
                    open=device.open_seconds,
                    idle=device.idle_joules,
                    idle_watts=device.idle_watts,
                    expected_watts=device.believed.expected_watts,
                )
                for name, device in list(self._devices.items())[:KEPT_DEVICES]
            },
        )

    @classmethod
    def from_state(cls, state: LedgerState, wall_seconds: float) -> "Ledger":
        """The ledger as it was. The time since is booked with each pool's next interval: by counters where they survived, else
        assumed, up to a day. A clock that was set back makes that time zero, not negative.
        """
        ledger = cls()
        ledger.pools = {name: _pool_accounts(pool) for name, pool in state.pools.items()}
        ledger.gone_pools = _pool_accounts(state.gone_pools)
        ledger.gone_models = _account(state.other_models)
        for kept in state.models:
            account = ModelAccount(_account(kept.account), kept.requests, kept.work, Pace(0.0))
            ledger.models[ModelKey(kept.namespace, kept.name)] = account
        gap = gap_seconds(state, wall_seconds)
        ledger._gaps = dict.fromkeys(state.pools, gap)
        ledger._devices = {name: _restored(name, device) for name, device in state.devices.items()}
        return ledger

    def _record(self, tick: PoolTick) -> Booked:
        gap = self._gaps.pop(tick.pool, 0.0)
        seconds = tick.seconds + gap
        splits, findings, longest, assumed, watts = [], list[Finding](), seconds, 0.0, tick.standing_watts
        listed = {device.device for device in tick.devices}
        gone = [name for name, device in self._devices.items() if device.pool == tick.pool and name not in listed]
        for name in gone:
            device = self._devices.pop(name)
            metered = self._close(device, gap)
            splits.append(self._split(device, metered))
            assumed += metered.assumed_joules
        for spec in tick.devices:
            metered, found = self._observe(tick.pool, spec, seconds, gap)
            findings.extend(found)
            watts += metered.watts
            assumed += metered.assumed_joules
            longest = max(longest, metered.seconds)
            if metered.seconds > 0:
                splits.append(self._split(self._devices[spec.device], metered))
        self._count(tick)
        standing = tick.standing_watts * seconds
        splits.append(Split(standing, standing, 0.0, 0.0))
        return self._book(tick, splits, findings, seconds, longest, assumed + standing, watts)

    def _observe(self, pool: str, spec: DeviceTick, seconds: float, gap: float) -> tuple[Metered, list[Finding]]:
        """One device's interval: what its meter tells, and what its models claim, kept until it is booked."""
        device = self._devices.get(spec.device)
        if device is None or (spec.reading is None) != (device.meters is None):
            meters = DeviceMeters(spec.device, spec.accelerators) if spec.reading is not None else None
            open_seconds = device.open_seconds if device is not None else 0.0
            device = _Device(pool, meters, device.splitter if device is not None else Splitter(), open_seconds=open_seconds)
            self._devices[spec.device] = device
        device.believed = Believed(spec.expected_watts, spec.nameplate_watts, spec.wraps_at_joules)
        device.idle_watts = spec.idle_watts
        device.open_seconds += seconds
        device.idle_joules += spec.idle_watts * seconds
        device.unseen_seconds += seconds if spec.replicas is None else 0.0 if spec.covers_gap else gap
        for replica in spec.replicas or ():
            claim = max(0.0, replica.busy_seconds) * max(0.0, replica.executing_watts - spec.idle_watts)
            device.claims[replica.model] = device.claims.get(replica.model, 0.0) + claim
            device.loading_joules += max(0.0, replica.loading_seconds) * max(0.0, replica.load_watts - spec.idle_watts)
        if device.meters is None or spec.reading is None:
            joules = spec.expected_watts * device.open_seconds
            return Metered(device.open_seconds, joules, joules, spec.expected_watts), []
        device.meters.accelerators = spec.accelerators
        return device.meters.observe(seconds, spec.reading, device.believed)

    def _close(self, device: _Device, gap: float) -> Metered:
        """A device that is gone: what its meter had not told yet is assumed, and that it ran on while nobody looked."""
        told = device.meters.close(device.believed) if device.meters is not None else Metered(0.0, 0.0, 0.0, 0.0)
        assumed = device.believed.expected_watts * (device.open_seconds + gap - told.seconds)
        device.idle_joules += device.idle_watts * gap
        device.unseen_seconds += gap
        return Metered(device.open_seconds + gap, told.joules + assumed, told.assumed_joules + assumed, 0.0)

    def _split(self, device: _Device, metered: Metered) -> Split:
        split = device.splitter.split(
            metered.joules,
            device.idle_joules,
            device.claims,
            device.loading_joules,
            metered.seconds,
            unobserved_seconds=min(device.unseen_seconds, metered.seconds),
            by_profile=metered.joules > 0 and metered.assumed_joules >= metered.joules,
        )
        device.open_seconds = device.idle_joules = device.loading_joules = device.unseen_seconds = 0.0
        device.claims = {}
        return split

    def _count(self, tick: PoolTick) -> None:
        """Requests and work count when they are seen, whenever their joules are booked."""
        for device in tick.devices:
            for replica in device.replicas or ():
                account = self._model(replica.model)
                account.requests += replica.requests
                account.work += replica.work
                account.pace.add(0.0, replica.requests, replica.work, self._clock_seconds)

    def _book(
        self,
        tick: PoolTick,
        splits: Sequence[Split],
        findings: Sequence[Finding],
        seconds: float,
        longest_seconds: float,
        device_assumed: float,
        device_watts: float,
    ) -> Booked:
        models: dict[ModelKey, float] = {}
        for split in splits:
            for key, joules in split.models.items():
                models[key] = models.get(key, 0.0) + joules
        device = math.fsum(split.device for split in splits)
        host = tick.host_watts * seconds
        overhead = (tick.pue - 1) * (device + host)
        booked = Booked(
            tick.pool,
            longest_seconds,
            device,
            math.fsum(split.idle for split in splits),
            math.fsum(split.loading for split in splits),
            math.fsum(split.unexplained for split in splits),
            host,
            overhead,
            models,
            device_assumed + host + overhead * (device_assumed / device if device > 0 else 1.0),
            tick.pue,
            tick.pue * (device_watts + tick.host_watts),
            tuple(findings),
        )
        self.pools.setdefault(tick.pool, PoolAccounts()).add(booked, device_assumed)
        share = device_assumed / device if device > 0 else 0.0
        for key, joules in models.items():
            account = self._model(key)
            account.joules.add(joules, joules * share)
            account.pace.add(joules, 0.0, 0.0, self._clock_seconds)
        return booked

    def _model(self, key: ModelKey) -> ModelAccount:
        account = self.models.get(key)
        if account is None:
            account = self.models[key] = ModelAccount(Account(), 0.0, 0.0, Pace(self._clock_seconds))
        return account


def _figures(account: ModelAccount, watts: float, total_watts: float, now: float) -> ModelFigures:
    hour = account.pace.long
    return ModelFigures(
        joules=account.joules.joules,
        requests=account.requests,
        watts=watts,
        share=watts / total_watts if total_watts > 0 else 0.0,
        joules_per_request=hour.joules / hour.requests if hour.requests >= 0.5 else None,
        joules_per_thousand_work=1000 * hour.joules / hour.work if hour.work >= 0.5 else None,
        trend=account.pace.trend(now),
        provenance=account.joules.provenance(),
    )


def _restored(name: str, state: DeviceState) -> _Device:
    """A device as it was; what had been claimed and not booked is split by its mix."""
    return _Device(
        pool=state.pool,
        meters=DeviceMeters.from_state(state.meters, name) if state.meters is not None else None,
        splitter=Splitter.from_state(state.split),
        believed=Believed(max(0.0, state.expected_watts)),
        idle_watts=max(0.0, state.idle_watts),
        open_seconds=max(0.0, state.open),
        idle_joules=max(0.0, state.idle),
        unseen_seconds=max(0.0, state.open),
    )


def _state(account: Account) -> AccountState:
    return (account.joules, account.assumed_joules)


def _account(state: AccountState) -> Account:
    return Account(state[0], max(0.0, state[1]))


def _pool_state(accounts: PoolAccounts) -> dict[str, AccountState]:
    return {name: _state(getattr(accounts, name)) for name in POOL_ACCOUNTS}


def _pool_accounts(state: Mapping[str, AccountState]) -> PoolAccounts:
    accounts = PoolAccounts()
    for name in POOL_ACCOUNTS:
        setattr(accounts, name, _account(state.get(name, (0.0, 0.0))))
    return accounts


def _model_state(key: ModelKey, model: ModelAccount) -> ModelState:
    return ModelState(
        namespace=key.namespace, name=key.name, account=_state(model.joules), requests=model.requests, work=model.work
    )


def gap_seconds(state: LedgerState, wall_seconds: float) -> float:
    """Seconds since a state in which nothing was booked, up to a day; none where the clock was set back."""
    return min(MOST_GAP_SECONDS, max(0.0, wall_seconds - state.wall_seconds))
