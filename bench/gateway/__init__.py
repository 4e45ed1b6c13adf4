"""Benches of the gateway: speed against going straight and against Traefik, and escalation on real labels."""
