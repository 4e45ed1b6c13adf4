"""The adapter to the Kubernetes API."""
