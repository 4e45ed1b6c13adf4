"""What a person may choose between on the command line: the values of options that commands and what answers them share."""

from enum import StrEnum


class PlanOutput(StrEnum):
    """How a plan is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class PointsOutput(StrEnum):
    """How the operating points are printed."""

    YAML = "yaml"
    JSON = "json"


class PolicyName(StrEnum):
    """Ways of running a fleet."""

    ERGON = "ergon"
    GENERAL = "general"
    GENERAL_HPA = "general-hpa"
    DEDICATED = "dedicated"
    HPA = "hpa"
    STATIC = "static"
    COST = "cost"
    CLAIRVOYANT = "clairvoyant"
    BOUND = "bound"


class ModeName(StrEnum):
    """How exactly."""

    REQUESTS = "requests"
    RATE = "rate"


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


class Balance(StrEnum):
    """How the gateway chooses a replica."""

    LEAST_REQUESTS = "least-requests"
    ROUND_ROBIN = "round-robin"


class Shown(StrEnum):
    """What `ergon top` shows."""

    ALL = "all"
    MODELS = "models"
    POOLS = "pools"
    BUDGETS = "budgets"


class Order(StrEnum):
    """What models are ordered by."""

    WATTS = "watts"
    JOULES = "joules"
    DEMAND = "demand"
    NAME = "name"
