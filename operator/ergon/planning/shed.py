"""The last word on watt limits: where a plan still draws more than a limit allows, what matters least in scope gives way."""

from ergon.planning.limits import Limit
from ergon.planning.power import drawn_in, figures
from ergon.planning.servers import Servers

_SLACK = 1e-10
"""Of a limit: what additions in another order may differ by."""


def hold_limits(servers: Servers) -> None:
    """Take replicas away until every limit that can be held is held; a packing made within the limits loses none."""
    for limit in servers.limits:
        while not limit.hopeless and _over(servers, limit):
            victim = _least_important(servers, limit)
            if victim is None:
                break
            servers.take(*victim)


def _over(servers: Servers, limit: Limit) -> bool:
    return drawn_in(servers, limit, figures(servers)) > limit.watts * (1 + _SLACK) + 1e-9


def _least_important(servers: Servers, limit: Limit) -> tuple[int, int] | None:
    """(model, server) in scope: of the lowest priority, on the highest ordinal."""
    tier = servers.problem.tier
    inside = [
        (int(tier[m]), servers.ordinal(s), s, m)
        for m, homes in enumerate(servers.homes)
        for s, c in homes.items()
        if limit.candidates[c] and (limit.whole_pools or servers.share[m][s] > 0)
    ]
    if not inside:
        return None
    _, _, s, m = max(inside)
    return m, s
