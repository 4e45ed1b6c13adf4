"""The operator's own metrics and logs: Prometheus series, health endpoints, JSON or text logging.

In: observations from the engine. Out: /metrics, /livez, /readyz, log lines.
"""
