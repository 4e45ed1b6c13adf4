"""What a plan is made for, and how hard planning may try. Work is counted in steps, never in time: a plan is deterministic."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Weights:
    """J = energy x watts + price x price per hour + grams x grams CO2 per hour. Default: energy alone."""

    energy: float = 1.0
    price: float = 0.0
    grams: float = 0.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try.

    `mip_nodes`: branch-and-bound nodes for the pool level (0: its relaxation only, rounded). `mip_columns`: the pool level is
    solved in whole servers and nodes up to so many columns, `whole_columns`: in whole awake servers too. `exact_binaries`:
    fleets with at most so many yes-or-no questions (replica on server) are solved whole. `tiers`: priorities whose shortfall is
    settled one after the other (lower ones together). `fills`: shares of a server that the pool level gives away, each packed
    anew, in larger fleets the first ones only; the best `starts` of the packings are improved. `pattern_rounds`: rounds in
    which patterns of whole servers are priced, in fleets of at most `pattern_columns` candidates (0: no patterns). `caps`:
    pools capped at fewer servers, one after the other, in fleets of so many `cap_columns`. `closings`, `rounds`: servers that
    are tried to be emptied, and rounds of ruin and recreate. `only_mend`: where the current replicas can be mended so that
    nothing is short, no other plan is sought. `solver_seconds` guards against a solver that hangs, and is no part of the
    effort: when it strikes, the plan says so.
    """

    mip_nodes: int = 200
    mip_columns: int = 6000
    whole_columns: int = 300
    exact_binaries: int = 120
    exact_nodes: int = 2000
    tiers: int = 8
    fills: tuple[float, ...] = (0.97, 0.95, 1.0, 0.99, 0.98, 0.96, 0.94, 0.92)
    starts: int = 1
    pattern_rounds: int = 0
    pattern_columns: int = 2000
    caps: int = 0
    cap_columns: int = 6000
    closings: int = 200
    rounds: int = 1000
    only_mend: bool = False
    solver_seconds: float = 20.0

    @classmethod
    def quick(cls) -> Self:
        """For planning again after one change: hardly more than mending what stands."""
        return cls(
            mip_nodes=0,
            mip_columns=0,
            exact_binaries=0,
            exact_nodes=0,
            closings=0,
            rounds=0,
            fills=(),
            caps=0,
            only_mend=True,
            pattern_rounds=0,
        )

    @classmethod
    def normal(cls) -> Self:
        """Some seconds of a core for 1,000 models on 20 pools."""
        return cls()

    @classmethod
    def thorough(cls) -> Self:
        """Several times as long."""
        return cls(
            mip_nodes=2000,
            whole_columns=6000,
            exact_binaries=200,
            exact_nodes=20000,
            starts=3,
            pattern_rounds=30,
            pattern_columns=6000,
            caps=30,
            closings=400,
            rounds=2000,
            solver_seconds=60.0,
        )
