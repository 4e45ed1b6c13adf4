"""Ergon: a Kubernetes operator for fleets of specialised models."""

__version__ = "0.1.0"
