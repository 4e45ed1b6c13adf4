"""A gateway's page as the plan takes it."""

import pytest

from ergon.demand.cascade import RouteCounters
from ergon.fleet.types import ModelKey
from ergon.telemetry.gateway_page import read_gateway_page

PAGE = """
# TYPE ergon_gateway_requests_total counter
ergon_gateway_requests_total{namespace="t",route="r",model="small",outcome="answered"} 80
ergon_gateway_requests_total{namespace="t",route="r",model="big",outcome="answered"} 19
ergon_gateway_requests_total{namespace="t",route="r",model="",outcome="expired"} 1
ergon_gateway_requests_total{namespace="t",route="r",model="",outcome="refused"} 7
# TYPE ergon_gateway_asked_total counter
ergon_gateway_asked_total{namespace="t",route="r",model="small"} 100
ergon_gateway_asked_total{namespace="t",route="r",model="big"} 20
# TYPE ergon_gateway_escalations_total counter
ergon_gateway_escalations_total{namespace="t",route="r",model="small",to="big",reason="Output"} 15
ergon_gateway_escalations_total{namespace="t",route="r",model="small",to="big",reason="Failed"} 5
# TYPE ergon_gateway_wished_escalations_total counter
ergon_gateway_wished_escalations_total{namespace="t",route="r"} 30
# TYPE ergon_gateway_joules_total counter
ergon_gateway_joules_total{namespace="t",route="r"} 812.5
# TYPE ergon_gateway_sample_quality gauge
ergon_gateway_sample_quality{namespace="t",route="r",rate="0"} 0.8
ergon_gateway_sample_quality{namespace="t",route="r",rate="0.05"} 0.85
ergon_gateway_sample_quality{namespace="t",route="r",rate="1"} NaN
ergon_gateway_sample_quality{namespace="t",route="r",rate="many"} 0.9
# TYPE ergon_gateway_held_requests gauge
ergon_gateway_held_requests{namespace="t",model="small"} 3
# TYPE process_open_fds gauge
process_open_fds 12
"""


def test_what_it_says_of_a_route() -> None:
    page = read_gateway_page(PAGE)
    route = ModelKey("t", "r")
    assert page.routes == {route: RouteCounters(100.0, {"small": 100.0, "big": 20.0}, 20.0, 30.0, 812.5)}
    assert page.samples == {route: {0.0: 0.8, 0.05: 0.85}}


def test_an_empty_page_says_nothing() -> None:
    assert read_gateway_page("").routes == {}


def test_what_is_no_page_is_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        read_gateway_page("<html>{}</html>")
