"""The story of one pool, as a table of situations."""

from dataclasses import replace

from ergon.reconcile.pools import AWAY_SECONDS, BACK_SECONDS, DOWN_SECONDS, PodView, PoolView, decide_pool, pool_status
from tests.planning.test_planner import pool


def pod(ordinal: int, **more: object) -> PodView:
    fields: dict[str, object] = {
        "ordinal": ordinal,
        "uid": f"uid-{ordinal}",
        "name": f"ergon-a-{ordinal}",
        "ready": True,
        "deleting": False,
        "cordoned": False,
        "outdated": False,
        "old_keys": False,
        "condemned": "",
        "holds_models": True,
        "unscheduled_seconds": None,
        "up": True,
        "down_seconds": 0.0,
        "back_seconds": None,
        "node_lost": False,
        "problem": "",
    }
    return PodView(**{**fields, **more})  # type: ignore[arg-type]


def seen(*pods: PodView, planned: int | None = 2, held: int = 1, **more: object) -> PoolView:
    return replace(PoolView(pool("a", servers=4), planned, held, pods, len(pods), 2, 0), **more)  # type: ignore[arg-type]


def test_servers_follow_the_plan_but_never_drop_one_that_holds_something() -> None:
    assert decide_pool(seen(pod(0), pod(1))).servers == 2
    assert decide_pool(seen(pod(0), pod(1), pod(2), planned=1, held=2)).servers == 3
    assert decide_pool(seen(planned=3, held=-1)).servers == 3
    assert decide_pool(seen(pod(0), pod(1), planned=None)).servers == 2


def test_a_cordoned_server_is_gone_round_and_given_up_when_empty() -> None:
    full = decide_pool(seen(pod(0, cordoned=True), pod(1)))
    assert full.unavailable == {0}
    assert full.give_up == ()
    empty = decide_pool(seen(pod(0, cordoned=True, holds_models=False), pod(1)))
    assert [p.ordinal for p in empty.give_up] == [0]


def test_a_leaving_server_that_is_not_ready_for_a_moment_keeps_its_models() -> None:
    moment = pod(0, cordoned=True, ready=False, down_seconds=2)
    assert decide_pool(seen(moment, pod(1))).give_up == ()
    for_good = pod(0, cordoned=True, ready=False, down_seconds=DOWN_SECONDS)
    assert [p.ordinal for p in decide_pool(seen(for_good, pod(1))).give_up] == [0]


def test_a_changed_template_rolls_one_server_at_a_time() -> None:
    decision = decide_pool(seen(pod(0, outdated=True), pod(1, outdated=True)))
    assert decision.unavailable == {0}


def test_servers_with_old_keys_are_replaced_one_at_a_time() -> None:
    decision = decide_pool(seen(pod(0, old_keys=True), pod(1, old_keys=True)))
    assert decision.unavailable == {0}
    assert decision.give_up == ()
    empty = decide_pool(seen(pod(0, old_keys=True, holds_models=False), pod(1, old_keys=True)))
    assert [p.ordinal for p in empty.give_up] == [0]


def test_a_roll_waits_for_the_server_before_it() -> None:
    starting = decide_pool(seen(pod(0, ready=False), pod(1, outdated=True)))
    assert starting.unavailable == frozenset()


def test_lost_and_unschedulable_servers_are_not_counted_on() -> None:
    decision = decide_pool(seen(pod(0, node_lost=True), pod(1, unscheduled_seconds=61), pod(2, deleting=True)))
    assert decision.unavailable == {0, 1, 2}
    assert decide_pool(seen(pod(0, unscheduled_seconds=30))).unavailable == frozenset()


def down(ordinal: int, seconds: float = AWAY_SECONDS, **more: object) -> PodView:
    return pod(ordinal, ready=False, up=False, down_seconds=seconds, **more)


def test_a_server_that_is_down_for_long_is_gone_round_while_others_stand() -> None:
    assert decide_pool(seen(pod(0), down(1, AWAY_SECONDS - 1))).unavailable == frozenset()
    assert decide_pool(seen(pod(0), down(1))).unavailable == {1}
    unready = pod(0, ready=False)  # as all are after an outage of the API server
    assert decide_pool(seen(unready, down(1))).unavailable == {1}


def test_what_more_servers_have_than_stand_is_their_pool_s_and_no_other_server_is_tried() -> None:
    assert decide_pool(seen(down(0))).unavailable == frozenset()
    assert decide_pool(seen(pod(0), down(1), down(2))).unavailable == frozenset()
    many = [down(n, AWAY_SECONDS + n) for n in range(1, 6)]
    standing = [pod(n) for n in range(6, 12)]
    assert decide_pool(seen(*many, *standing)).unavailable == {5, 4, 3}


def test_a_server_that_is_only_just_back_is_left_alone_unless_something_needs_it() -> None:
    back = pod(1, back_seconds=BACK_SECONDS - 1)
    assert decide_pool(seen(pod(0), back)).unavailable == {1}
    assert decide_pool(seen(pod(0), back, lacking=True)).unavailable == frozenset()
    assert decide_pool(seen(pod(0), back, planned_on=frozenset({1}))).unavailable == frozenset()
    assert decide_pool(seen(pod(0), pod(1, back_seconds=BACK_SECONDS))).unavailable == frozenset()
    assert decide_pool(seen(pod(0, back_seconds=1))).unavailable == frozenset(), "there is no other one"


def test_a_deleted_pool_is_released_only_when_empty() -> None:
    deleting = pool("a", servers=4, deleting=True)
    assert not decide_pool(seen(pod(0), held=0, pool=deleting)).release
    assert decide_pool(seen(pod(0, holds_models=False), held=-1, pool=deleting)).release


def test_the_status_says_what_is_wrong() -> None:
    def reason(view: PoolView) -> tuple[bool | None, str, str]:
        facts, _ = pool_status(view, decide_pool(view))
        last = facts[-1]
        return last.status, last.reason, last.message

    assert reason(seen(pod(0), pod(1)))[:2] == (True, "Ready")
    assert reason(seen(pod(0), pod(1, ready=False)))[:2] == (False, "ServersPending")
    unschedulable = seen(pod(0), pod(1, ready=False, unscheduled_seconds=5, problem="0/3 nodes are available"))
    assert reason(unschedulable) == (False, "PodUnschedulable", "server 1: 0/3 nodes are available")
    assert "being emptied: its node is cordoned" in reason(seen(pod(0, cordoned=True), pod(1)))[2]
    facts, _ = pool_status(seen(template_refused="spec.template: no"), decide_pool(seen()))
    assert (facts[0].status, facts[0].reason) == (False, "TemplateInvalid")
