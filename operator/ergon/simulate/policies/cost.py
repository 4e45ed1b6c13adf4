"""`cost`: for each model the cheapest mix of pools that carries its load, by an integer programme, as Mélange does for one model.

Pods of a model are its own; price is the pools' pricePerServerHour. Of equal prices the fewest watts.
"""

import highspy

from ergon.simulate.policies.homes import Home

_WATTS = 1e-6
"""Weight of a watt beside the price: it only breaks ties."""


class _Quiet(highspy.Highs):
    """HiGHS without the banner that enabling its callbacks prints."""

    def enableCallbacks(self) -> None:  # noqa: N802
        """Called when it is made."""
        self.setOptionValue("output_flag", False)


def cheapest_mix(homes: list[Home], work_per_second: float) -> list[tuple[Home, int]]:
    """Pods by home, one at least in all, whose planned work adds up to the load. Raises ArithmeticError where none does."""
    solver = _Quiet()  # type: ignore[no-untyped-call]
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("mip_rel_gap", 0.0)
    counts = [
        solver.addIntegral(lb=0, ub=home.pool.servers_max * home.slots, obj=home.price(1) + _WATTS * home.watts(1, 0.0))
        for home in homes
    ]
    largest = max(home.pod_work_per_second for home in homes)
    solver.addConstr(
        sum(count * (home.pod_work_per_second / largest) for count, home in zip(counts, homes, strict=True))
        >= work_per_second / largest
    )
    solver.addConstr(sum(counts) >= 1)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise ArithmeticError("the load is more than all pools carry")
    values = solver.getSolution().col_value
    return [(home, round(value)) for home, value in zip(homes, values, strict=True) if round(value)]
