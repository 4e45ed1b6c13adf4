"""The ledger: every joule in one account, whatever resets, gaps and restarts come between."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.energy.accounts import Provenance
from ergon.energy.ledger import POOL_ACCOUNTS, Booked, DeviceTick, Ledger, PoolAccounts, PoolTick, ReplicaTick
from ergon.energy.ledger_state import LedgerState
from ergon.energy.meters import Reading
from ergon.fleet.types import ModelKey
from tests.energy.world import A, B


def replica(model: ModelKey, busy_seconds: float, watts: float = 72.0, **more: float) -> ReplicaTick:
    return ReplicaTick(model, busy_seconds, watts, **more)


def device(
    *replicas: ReplicaTick, name: str = "l4-0", reading: Reading | None = None, seen: bool = True, expected: float = 40.0
) -> DeviceTick:
    return DeviceTick(name, 16.0, expected, replicas if seen else None, reading, nameplate_watts=150.0)


def counted(joules: float | None) -> Reading:
    return Reading() if joules is None else Reading({"gpu": joules})


def tick(*devices: DeviceTick, seconds: float = 5.0, pool: str = "l4", **more: float) -> PoolTick:
    return PoolTick(pool, seconds, devices, **more)


def restarted(ledger: Ledger, wall: float, down_seconds: float) -> Ledger:
    return Ledger.from_state(LedgerState.model_validate_json(ledger.to_state(wall).model_dump_json()), wall + down_seconds)


def conserved(accounts: PoolAccounts) -> bool:
    parts = [accounts.models.joules, accounts.loading.joules, accounts.idle.joules, accounts.unexplained.joules]
    return math.isclose(math.fsum(parts), accounts.device.joules, rel_tol=1e-9, abs_tol=1e-9)


def test_a_metered_server_is_split_by_busy_time_above_idle_and_the_rest_is_unexplained() -> None:
    ledger = Ledger()
    ledger.record([tick(device(reading=counted(1000.0)), seconds=0.0)])
    (booked,) = ledger.record(
        [
            tick(
                device(replica(A, 2.0), replica(B, 0.5, loading_seconds=1.0, load_watts=50.0), reading=counted(1300.0)),
                host_watts=90.0,
                pue=1.2,
            )
        ]
    )
    assert booked.device_joules == 300
    assert (booked.idle_joules, booked.loading_joules) == (80.0, 34.0)
    assert booked.models == {A: 112.0, B: 28.0}
    assert booked.unexplained_joules == pytest.approx(46.0)
    assert (booked.host_joules, booked.overhead_joules) == (450.0, pytest.approx(150.0))
    assert booked.joules == pytest.approx(900.0)
    assert booked.watts == pytest.approx(1.2 * (60 + 90))
    accounts = ledger.pools["l4"]
    assert accounts.device.provenance(Provenance.MEASURED) is Provenance.MEASURED
    assert ledger.figures()[A].provenance is Provenance.DERIVED


def test_claims_never_go_beyond_the_device_and_are_cut_alike() -> None:
    ledger = Ledger()
    ledger.record([tick(device(reading=counted(0.0)), seconds=0.0)])
    (booked,) = ledger.record([tick(device(replica(A, 5.0), replica(B, 2.5), reading=counted(200.0)))])
    assert booked.models == {A: pytest.approx(80.0), B: pytest.approx(40.0)}
    assert booked.unexplained_joules == pytest.approx(0.0)


def test_a_meter_a_little_behind_triton_is_matched_within_a_minute() -> None:
    """1 s of lag and a load that switches on and off: what is unexplained in one interval is explained in the next."""
    ledger, joules = Ledger(), 0.0
    for step in range(200):
        busy, before = (5.0 if step // 3 % 2 else 0.0), (5.0 if step and (step - 1) // 3 % 2 else 0.0)
        joules += 5 * 16 + 56 * (0.8 * busy + 0.2 * before)
        ledger.record([tick(device(replica(A, busy), reading=counted(joules)))])
    accounts = ledger.pools["l4"]
    assert abs(accounts.unexplained.joules) < 0.01 * accounts.device.joules


def test_a_server_without_a_meter_is_its_profile_and_all_of_it_is_assumed() -> None:
    ledger = Ledger()
    (booked,) = ledger.record([tick(device(replica(A, 2.0), replica(B, 1.0), expected=49.6))])
    assert booked.device_joules == pytest.approx(248)
    assert booked.assumed_joules == pytest.approx(248)
    assert booked.models == {A: pytest.approx(112), B: pytest.approx(56)}
    assert ledger.figures()[A].provenance is Provenance.ASSUMED


def test_the_awake_step_of_a_server_by_profile_belongs_to_those_who_woke_it() -> None:
    (booked,) = Ledger().record([tick(device(replica(A, 1.0), expected=60.0))])
    assert booked.models == {A: pytest.approx(220.0)}
    assert booked.unexplained_joules == pytest.approx(0.0)


def test_servers_that_boot_or_shut_down_are_idle_and_assumed() -> None:
    (booked,) = Ledger().record([tick(standing_watts=32.0, host_watts=180.0, pue=1.5)])
    assert (booked.idle_joules, booked.device_joules, booked.joules) == (160.0, 160.0, pytest.approx(1590.0))


def test_a_moment_of_silence_waits_and_is_booked_once_with_what_was_claimed_meanwhile() -> None:
    ledger = Ledger()
    ledger.record([tick(device(reading=counted(0.0)), seconds=0.0)])
    (silent,) = ledger.record([tick(device(replica(A, 1.0), reading=counted(None)))])
    (told,) = ledger.record([tick(device(replica(A, 1.0), reading=counted(400.0)))])
    assert (silent.device_joules, silent.models) == (0.0, {})
    assert (told.device_joules, told.idle_joules, told.seconds) == (400.0, 160.0, 10.0)
    assert told.models == {A: 112.0}


def test_a_server_that_went_is_closed_and_what_it_had_not_told_is_assumed() -> None:
    ledger = Ledger()
    ledger.record([tick(device(reading=counted(0.0)), seconds=0.0)])
    ledger.record([tick(device(reading=counted(None)))])
    (booked,) = ledger.record([tick()])
    assert (booked.device_joules, booked.assumed_joules) == (200.0, 200.0)


def test_an_interval_without_statistics_is_split_as_the_minutes_before_it() -> None:
    ledger = Ledger()
    for step in range(20):
        ledger.record([tick(device(replica(A, 3.0), replica(B, 1.0), reading=counted(step * 400.0)))])
    (booked,) = ledger.record([tick(device(seen=False, reading=counted(20 * 400.0)))])
    assert booked.models[A] == pytest.approx(168, rel=1e-6)
    assert booked.models[B] == pytest.approx(56, rel=1e-6)


def test_a_restart_counts_the_gap_once_measured_where_the_counter_survived() -> None:
    ledger = Ledger()
    for step in range(20):
        ledger.record([tick(device(replica(A, 3.0), reading=counted(step * 300.0)), host_watts=90.0)])
    ledger = restarted(ledger, wall=1e9, down_seconds=45.0)
    (booked,) = ledger.record([tick(device(replica(A, 3.0), reading=counted(19 * 300.0 + 3000.0)), host_watts=90.0)])
    assert booked.device_joules == pytest.approx(3000)
    assert booked.assumed_joules == pytest.approx(90 * 50), "only the host is"
    assert booked.models[A] == pytest.approx(10 * 168, rel=1e-4), "the gap is split as the minutes before it"
    assert booked.seconds == 50


def test_a_restart_assumes_the_gap_where_nothing_counts_and_a_clock_set_back_makes_it_zero() -> None:
    ledger = Ledger()
    ledger.record([tick(device(replica(A, 2.0)))])
    (after,) = restarted(ledger, 1e9, 60.0).record([tick(device(replica(A, 2.0)))])
    assert (after.device_joules, after.assumed_joules) == (65 * 40, 65 * 40)
    (back,) = restarted(ledger, 1e9, -3600.0).record([tick(device(replica(A, 2.0)))])
    assert back.device_joules == 200


def test_a_server_that_never_came_back_is_assumed_to_have_run_through_the_gap() -> None:
    ledger = Ledger()
    ledger.record([tick(device(replica(A, 2.0), reading=counted(0.0)))])
    (after,) = restarted(ledger, 1e9, 60.0).record([tick()])
    assert after.device_joules == pytest.approx(60 * 40)
    assert after.idle_joules == pytest.approx(60 * 16)


def test_what_is_gone_keeps_its_sum() -> None:
    ledger = Ledger()
    ledger.record([tick(device(replica(A, 2.0), replica(B, 1.0), expected=50.0)), tick(device(name="x-0"), pool="x")])
    charged = ledger.models[A].joules.joules
    ledger.forget({B}, {"l4"})
    assert set(ledger.models) == {B}
    assert ledger.gone_models.joules == charged
    assert ledger.gone_pools.device.joules == 200
    restored = restarted(ledger, 0.0, 0.0)
    assert (restored.gone_models.joules, restored.gone_pools.device.joules) == (charged, 200)


def test_figures_for_people() -> None:
    ledger = Ledger()
    for step in range(1000):
        quiet = step >= 900
        ledger.record(
            [
                tick(
                    device(
                        replica(A, 1.0, requests=10, work=400),
                        replica(B, 0.0 if quiet else 3.0),
                        reading=counted(5 * step * 80.0),
                    )
                )
            ]
        )
    shown = ledger.figures()
    assert shown[A].joules_per_request == pytest.approx(5.6, rel=1e-3)
    assert shown[A].joules_per_thousand_work == pytest.approx(140, rel=1e-3)
    assert shown[A].watts == pytest.approx(11.2, rel=1e-3)
    assert shown[A].requests == 10_000
    assert shown[A].trend == pytest.approx(0, abs=0.01)
    assert shown[B].trend is not None
    assert shown[B].trend < -0.5
    assert shown[B].joules_per_request is None
    assert shown[A].share + shown[B].share == pytest.approx(1)


def test_a_state_is_small_whatever_the_fleet() -> None:
    ledger = Ledger()
    models = [ModelKey("team", f"model-{number:04}") for number in range(1000)]
    ticks = [
        device(
            *(replica(models[(server * 10 + i) % 1000], 0.1) for i in range(10)),
            name=f"accelerators-of-some-kind-{server}",
            reading=Reading({f"GPU-8f6d0b1e-5a3c-4c0e-9d2f-{server:012}": 1e6 / 3}),
        )
        for server in range(100)
    ]
    ledger.record([tick(*ticks)])
    ledger.record(
        [
            tick(
                *(
                    replace(spec, reading=Reading({k: v + 100 / 3 for k, v in spec.reading.joules.items()}))
                    for spec in ticks
                    if spec.reading
                )
            )
        ]
    )
    text = ledger.to_state(1.7e9).model_dump_json(exclude_defaults=True)
    assert len(text) < 150_000
    total = math.fsum(account.joules.joules for account in ledger.models.values())
    restored = Ledger.from_state(LedgerState.model_validate_json(text), 1.7e9)
    kept = math.fsum([restored.gone_models.joules, *(account.joules.joules for account in restored.models.values())])
    assert (len(restored.models), kept) == (200, pytest.approx(total))


STEP = st.fixed_dictionaries(
    {
        "watts": st.floats(16, 140),
        "busy": st.tuples(st.floats(0, 6), st.floats(0, 6)),
        "loading": st.floats(0, 5),
        "event": st.sampled_from(["", "", "", "", "silent", "reset", "unseen", "restart", "gone", "absurd"]),
    }
)


def run(steps: list[dict[str, object]], restarts: bool) -> tuple[Ledger, list[Booked]]:
    """A ledger over these steps: a counter that resets, falls silent, lies; statistics that fail; restarts of ours."""
    ledger, counter, booked = Ledger(), 0.0, list[Booked]()
    for step in steps:
        event = step["event"]
        counter = (0.0 if event == "reset" else counter) + 5 * float(step["watts"])  # type: ignore[arg-type]
        told = {"silent": None, "absurd": 1e15}.get(str(event), counter)
        if event == "restart" and restarts:
            ledger = restarted(ledger, 1e9, 0.0)
        busy_a, busy_b = step["busy"]  # type: ignore[misc]
        spec = device(
            replica(A, busy_a, loading_seconds=step["loading"], load_watts=60.0),  # type: ignore[arg-type]
            replica(B, busy_b),
            reading=counted(told),
            seen=event != "unseen",
        )
        devices = () if event == "gone" else (spec, device(replica(B, 1.0), name="l4-1"))
        booked += ledger.record([tick(*devices, host_watts=90.0, pue=1.2)])
    return ledger, booked


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_accounts_add_up_and_nothing_is_negative_but_unexplained(steps: list[dict[str, object]]) -> None:
    ledger, booked = run(steps, restarts=True)
    for accounts in ledger.pools.values():
        assert conserved(accounts)
        for name in POOL_ACCOUNTS:
            assert name == "unexplained" or getattr(accounts, name).joules >= 0
        assert accounts.overhead.joules == pytest.approx(0.2 * (accounts.device.joules + accounts.host.joules))
    for interval in booked:
        assert min([0.0, interval.device_joules, interval.idle_joules, interval.loading_joules, *interval.models.values()]) >= 0
        parts = [interval.idle_joules, interval.loading_joules, interval.unexplained_joules, *interval.models.values()]
        assert math.isclose(math.fsum(parts), interval.device_joules, rel_tol=1e-9, abs_tol=1e-9)
    charged = math.fsum(account.joules.joules for account in ledger.models.values())
    assert charged == pytest.approx(math.fsum(accounts.models.joules for accounts in ledger.pools.values()))


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP.map(lambda step: {**step, "event": "restart"}), min_size=1, max_size=30))
def test_restarts_at_any_point_change_no_total(steps: list[dict[str, object]]) -> None:
    whole, _ = run(steps, restarts=False)
    cut, _ = run(steps, restarts=True)
    for name in ("device", "idle", "host", "overhead"):
        assert getattr(cut.pools["l4"], name).joules == pytest.approx(getattr(whole.pools["l4"], name).joules)
