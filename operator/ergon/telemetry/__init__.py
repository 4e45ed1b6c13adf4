"""The operator's own metrics and logs: Prometheus series, health endpoints, JSON or text logging.

In: observations from the engine, Triton's pages, Prometheus's answers. Out: /metrics, /livez, /readyz, log lines, power readings.
"""
