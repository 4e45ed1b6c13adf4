"""The story of one model, as a table of situations."""

from dataclasses import replace

import pytest

from ergon.api.model import SpecializedModelStatus
from ergon.fleet.types import Model, ModelKey, Replica, ServerKey
from ergon.reconcile.decide import Decision, DrainPolicy, StartDrain, Unload, decide
from ergon.reconcile.observed import (
    Drain,
    Failure,
    IndexState,
    Job,
    JobKind,
    JobPhase,
    ModelView,
    Refusal,
    ReplicaView,
    ServerView,
)
from ergon.reconcile.status import model_status
from tests.planning.test_planner import model, variant

NOW = 1000.0
POLICY = DrainPolicy(70.0, {"cpu": 600.0})
KEY = ModelKey("team", "m")


def server(ordinal: int = 0, **more: object) -> ServerView:
    fields: dict[str, object] = {
        "key": ServerKey("cpu", ordinal),
        "pod_name": f"ergon-cpu-{ordinal}",
        "pod_uid": f"uid-{ordinal}",
        "ip": f"10.244.0.{ordinal + 1}",
        "node": "n",
        "zone": "",
        "pod_ready": True,
        "deleting": False,
        "synced": True,
        "answering": True,
    }
    return ServerView(**{**fields, **more})  # type: ignore[arg-type]


def at(ordinal: int, variant_name: str = "v") -> Replica:
    return Replica(KEY, variant_name, ServerKey("cpu", ordinal))


def ready(ordinal: int, **more: object) -> ReplicaView:
    return replace(
        ReplicaView(server(ordinal), IndexState.READY, loaded_revision="l-v", has_files=True),
        **more,  # type: ignore[arg-type]
    )


def view(m: Model | None, planned: tuple[Replica, ...], *replicas: ReplicaView, **more: object) -> ModelView:
    servers = tuple({r.server.key: r.server for r in replicas}.values())
    fields: dict[str, object] = {"model": m, "planned": planned, "replicas": replicas, "servers": servers}
    return ModelView(**{**fields, **more})  # type: ignore[arg-type]


def decided(seen: ModelView) -> Decision:
    return decide(seen, NOW, POLICY)


def names(decision: Decision) -> list[str]:
    return [type(action).__name__ for action in decision.actions]


def test_a_planned_replica_is_brought_up() -> None:
    decision = decided(view(model("m"), (at(0),), servers=(server(),)))
    assert names(decision) == ["BringUp"]
    assert decision.endpoints == ()


def test_a_ready_replica_gets_traffic_and_nothing_else_happens() -> None:
    decision = decided(view(model("m"), (at(0),), ready(0)))
    assert decision.actions == ()
    assert [s.key.ordinal for s in decision.endpoints] == [0]


@pytest.mark.parametrize(
    "more",
    [{"synced": False}, {"pod_ready": False}, {"deleting": True}, {"answering": False}],
    ids=["not read", "not ready", "deleting", "silent"],
)
def test_a_server_that_is_not_fully_there_is_not_touched(more: dict[str, object]) -> None:
    surplus = replace(ready(0), server=server(0, **more))
    assert decided(view(None, (), surplus)).actions == ()


@pytest.mark.parametrize("more", [{"pod_ready": False}, {"deleting": True}, {"answering": False}])
def test_traffic_leaves_a_server_that_does_not_serve(more: dict[str, object]) -> None:
    decision = decided(view(model("m"), (at(0),), replace(ready(0), server=server(0, **more))))
    assert decision.endpoints == ()


def test_a_new_leader_believes_the_slices_until_it_has_read_the_server() -> None:
    unread = server(0, synced=False, answering=False)
    kept = decided(view(model("m"), (at(0),), servers=(unread,), kept_pod_uids=frozenset({"uid-0"})))
    assert [s.pod_uid for s in kept.endpoints] == ["uid-0"]
    for more in ({"pod_ready": False}, {"silent": True}, {"deleting": True}):
        dead = replace(unread, **more)
        assert decided(view(model("m"), (at(0),), servers=(dead,), kept_pod_uids=frozenset({"uid-0"}))).endpoints == ()


def test_a_move_makes_before_it_breaks() -> None:
    m = model("m")
    loading = ReplicaView(server(1), IndexState.LOADING, job=Job(JobKind.BRING_UP, "l-v", JobPhase.LOADING))
    moving = decided(view(m, (at(1),), ready(0), loading))
    assert moving.actions == ()
    assert [s.key.ordinal for s in moving.endpoints] == [0]
    moved = decided(view(m, (at(1),), ready(0), ready(1)))
    assert names(moved) == ["StartDrain"]
    assert [s.key.ordinal for s in moved.endpoints] == [1]


def test_of_several_that_move_one_goes_for_each_that_came() -> None:
    def goes(*there: ReplicaView) -> list[int]:
        decision = decided(view(model("m"), (at(4), at(5), at(6)), *there))
        return [action.server.key.ordinal for action in decision.actions if isinstance(action, StartDrain)]

    old = [ready(ordinal) for ordinal in range(3)]
    assert goes(*old) == []
    assert goes(*old, ready(4)) == [2]
    assert goes(*old[:2], ready(2, drain=Drain(NOW, NOW, 0)), ready(4), ready(5)) == [1]
    assert goes(*old[:1], ready(4), ready(5)) == []
    assert goes(*old, ready(4), ready(5), ready(6)) == [0, 1, 2]


def test_a_drained_replica_is_unloaded_by_evidence_or_at_the_timeout() -> None:
    m = model("m")

    def after(since: float, last: float, requests: int = 0) -> Decision:
        return decided(view(m, (at(1),), ready(0, drain=Drain(NOW - since, NOW - last, requests)), ready(1)))

    assert names(after(69, 69)) == []
    assert names(after(71, 71)) == ["Unload"]
    assert names(after(300, 5, 40)) == []
    late = after(601, 5, 40)
    assert names(late) == ["Unload"]
    assert isinstance(late.actions[0], Unload)
    assert late.actions[0].still_asked == 40


def test_a_drain_ends_when_the_replica_is_wanted_again() -> None:
    draining = ready(0, drain=Drain(NOW - 5, NOW - 5, 0))
    assert names(decided(view(model("m"), (at(0),), draining))) == ["StopDrain"]
    lost_its_successor = decided(view(model("m"), (at(1),), draining))
    assert names(lost_its_successor) == ["StopDrain"]


def test_a_deleted_model_goes_within_seconds() -> None:
    assert names(decided(view(None, (), ready(0)))) == ["StartDrain"]
    assert names(decided(view(None, (), ready(0, drain=Drain(NOW - 1.1, NOW - 1.1, 0))))) == ["Unload"]
    assert names(decided(view(None, (), ready(0, drain=Drain(NOW - 5.1, NOW - 0.1, 9))))) == ["Unload"]
    assert names(decided(view(None, (), ReplicaView(server(0), IndexState.UNAVAILABLE, has_files=True)))) == ["Remove"]


def test_scaled_to_zero_drains_with_evidence() -> None:
    m = model("m", fixed=0)
    assert names(decided(view(m, (), ready(0)))) == ["StartDrain"]
    assert names(decided(view(m, (), ready(0, drain=Drain(NOW - 10, NOW - 10, 0))))) == []


def test_a_changed_specification_reloads_in_place_while_the_old_one_serves() -> None:
    m = model("m", variant("w"))
    decision = decided(view(m, (at(0, "w"),), ready(0)))
    assert names(decision) == ["BringUp"]
    assert [s.key.ordinal for s in decision.endpoints] == [0]


def test_a_change_while_loading_stops_the_old_job() -> None:
    m = model("m", variant("w"))
    loading = ReplicaView(server(0), IndexState.LOADING, job=Job(JobKind.BRING_UP, "l-v", JobPhase.LOADING))
    decision = decided(view(m, (at(0, "w"),), loading))
    assert names(decision) == ["Cancel"]


def test_a_failure_waits_for_its_time_and_a_hang_for_ever() -> None:
    def failed(retry_at: float | None, revision: str = "l-v") -> Decision:
        failure = Failure(revision, "LoadFailed", "boom", 1, retry_at)
        return decided(view(model("m"), (at(0),), ReplicaView(server(0), has_files=True, failure=failure)))

    assert failed(NOW + 10).actions == ()
    assert failed(NOW + 10).look_again_at_seconds == NOW + 10
    assert names(failed(NOW - 1)) == ["BringUp"]
    assert failed(None).actions == ()
    assert names(failed(None, "another revision")) == ["BringUp"]


def test_a_dead_process_is_repaired_and_gets_no_traffic() -> None:
    decision = decided(view(model("m"), (at(0),), ready(0, healthy=False)))
    assert names(decision) == ["Repair"]
    assert decision.endpoints == ()


def test_a_process_that_dies_again_and_again_is_repaired_after_a_pause() -> None:
    def died(retry_at: float) -> Decision:
        failure = Failure("l-v", "Unhealthy", "its process died again", 2, retry_at)
        return decided(view(model("m"), (at(0),), ready(0, healthy=False, failure=failure)))

    assert died(NOW + 10).actions == ()
    assert died(NOW + 10).look_again_at_seconds == NOW + 10
    assert died(NOW + 10).endpoints == ()
    assert names(died(NOW)) == ["Repair"]


def test_an_object_that_cannot_be_understood_changes_nothing() -> None:
    decision = decided(view(None, (), ready(0), refusal=Refusal("InvalidSpec", "spec.task is missing")))
    assert decision.actions == ()
    assert len(decision.endpoints) == 1
    facts, body = model_status(view(None, (), ready(0), refusal=Refusal("InvalidSpec", "no task")), decision)
    assert [(f.type, f.status, f.reason) for f in facts][:4] == [
        ("Accepted", False, "InvalidSpec"),
        ("Placed", False, "NotAccepted"),
        ("Loaded", True, "Loaded"),
        ("Ready", False, "InvalidSpec"),
    ]
    assert body["readyReplicas"] == 1


def test_nothing_is_taken_away_before_the_first_plan() -> None:
    assert decided(view(model("m"), (), ready(0), planned_once=False)).actions == ()


def test_a_model_without_a_place_serves_on_until_its_room_is_waited_for() -> None:
    """And one that has another place, until that serves."""
    m, crowded = model("m"), server(0, crowded=True)
    loading = replace(ready(1), index=IndexState.LOADING, loaded_revision=None)
    assert names(decided(view(m, (), ready(0)))) == []
    assert names(decided(view(m, (), replace(ready(0), server=crowded)))) == ["StartDrain"]
    assert "StartDrain" not in names(decided(view(m, (at(1),), replace(ready(0), server=crowded), loading)))


def test_models_of_a_deleted_pool_go_when_nothing_else_can_take_them() -> None:
    leaving = replace(ready(0), server=server(0, leaving="PoolDeleted"))
    assert names(decided(view(model("m"), (), leaving, missing_replicas=1))) == ["StartDrain"]
    cordoned = replace(ready(0), server=server(0, leaving="its node is cordoned"))
    assert names(decided(view(model("m"), (), cordoned, missing_replicas=1))) == []


def status_of(seen: ModelView) -> dict[str, tuple[bool | None, str]]:
    facts, _ = model_status(seen, decided(seen))
    return {fact.type: (fact.status, fact.reason) for fact in facts}


def test_the_status_of_each_step() -> None:
    m = model("m", replicas=2)
    two = (at(0), at(1))
    both = (server(0), server(1))
    downloading = ReplicaView(server(0), job=Job(JobKind.BRING_UP, "l-v", JobPhase.DOWNLOADING, "10 MiB of 1.0 GiB"))
    assert status_of(view(m, two, downloading, servers=both)) == {
        "Accepted": (True, "Accepted"),
        "Placed": (True, "Placed"),
        "Loaded": (False, "Downloading"),
        "Ready": (False, "Downloading"),
        "Reconciling": (True, "Downloading"),
    }
    assert status_of(view(m, two, ready(0), servers=both))["Ready"] == (True, "PartiallyReady")
    assert status_of(view(m, two, ready(0), ready(1))) == {
        "Accepted": (True, "Accepted"),
        "Placed": (True, "Placed"),
        "Loaded": (True, "Loaded"),
        "Ready": (True, "Ready"),
    }
    failure = Failure("l-v", "SourceNotFound", "nothing is there", 1, NOW + 5)
    broken = status_of(view(m, two, ReplicaView(server(0), failure=failure), servers=both))
    assert broken["Ready"] == (False, "SourceNotFound")
    assert broken["Stalled"] == (True, "SourceNotFound")
    nowhere = status_of(view(m, (), missing_replicas=2))
    assert nowhere["Placed"] == (False, "NoPoolFits")
    assert nowhere["Stalled"] == (True, "NoPoolFits")
    assert status_of(view(model("m", fixed=0), ()))["Ready"] == (True, "ScaledToZero")
    assert status_of(view(model("m", replicas=0), (at(0),), ready(0)))["Accepted"] == (True, "NoGateway")


def test_a_status_of_more_servers_than_fit_shows_those_in_trouble() -> None:
    many = 1100
    failure = Failure("l-v", "LoadFailed", "no", 1, NOW + 5)
    broken = ReplicaView(server(many - 1), failure=failure)
    loading = ReplicaView(server(many - 2), job=Job(JobKind.BRING_UP, "l-v", JobPhase.LOADING))
    seen = view(
        model("m", replicas=many), tuple(at(n) for n in range(many)), *(ready(n) for n in range(many - 2)), loading, broken
    )
    _, body = model_status(seen, decided(seen))
    SpecializedModelStatus.model_validate(body)  # within the schema's bounds, or the API server takes no status at all
    shown = [(placement["server"], placement["state"]) for placement in body["placements"]]
    assert shown == [*((n, "Ready") for n in range(1022)), (many - 2, "Loading"), (many - 1, "Failed")]
    assert body["replicas"] == many
