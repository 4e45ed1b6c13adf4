"""Accelerators that generated fleets consist of. Figures are of the right size, not of any one machine."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Product:
    """One kind of server. `speed`: work per second of an encoder, a Xeon being 1; `tokens`: of a generative model, 0 for none."""

    name: str
    accelerator: str
    memory_gib: float
    max_models: int | None
    idle_watts: float
    busy_watts: float
    host_watts: float
    servers_per_node: int
    speed: float
    tokens: float
    awake_watts: float
    price: float


PRODUCTS = (
    Product("H100", "gpu", 76, None, 75, 660, 1600, 8, 12.0, 1.0, 430, 3.2),
    Product("L4", "gpu", 22, None, 16, 72, 560, 8, 3.0, 0.12, 50, 0.75),
    Product("A10", "gpu", 22, None, 22, 150, 240, 2, 4.0, 0.2, 105, 1.0),
    Product("v5e", "tpu", 15, 6, 45, 170, 110, 1, 5.0, 0.3, 110, 1.2),
    Product("Xeon", "cpu", 96, None, 35, 230, 95, 1, 1.0, 0.0, 0, 0.5),
    Product("Arm", "cpu", 64, None, 18, 120, 55, 1, 0.7, 0.0, 0, 0.3),
    Product("Edge", "npu", 6, 10, 2, 14, 6, 1, 0.35, 0.0, 0, 0.05),
)
GPUS = tuple(product for product in PRODUCTS if product.accelerator == "gpu")
