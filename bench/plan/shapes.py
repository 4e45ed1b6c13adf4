"""How large generated fleets are, what makes them hard, and what each of them promises."""

from dataclasses import dataclass
from enum import StrEnum


class Style(StrEnum):
    """What makes a fleet hard."""

    MIXED = "mixed"
    TIGHT_MEMORY = "tight-memory"
    TIGHT_WATTS = "tight-watts"
    ONE_CLASS = "one-class"
    MANY_IDLE = "many-idle"


@dataclass(frozen=True)
class Size:
    """Models, pools and servers."""

    models: int
    pools: int
    servers: int

    def __str__(self) -> str:
        return f"{self.models:,} x {self.pools} x {self.servers:,}"

    def of_style(self, style: Style) -> "Size":
        """Many idle models stand on few servers."""
        if style is not Style.MANY_IDLE:
            return self
        return Size(self.models, min(self.pools, 6, max(2, self.models // 60)), max(4, round(self.models * 0.027)))


SIZES = {
    "tiny": Size(8, 3, 6),
    "small": Size(100, 8, 60),
    "mid": Size(1000, 20, 500),
    "large": Size(10000, 40, 5000),
}
ZIPFS = (0.8, 1.2)


class Promise:
    """What holds for every fleet: its load, and least shares of the models that are hard in a way, of those with demand."""

    load = (0.5, 0.85)
    unsplittable = 0.2
    most_binds = 0.15
    two_at_least = 0.1
    tight_latency = 0.2
