"""Where Kubernetes events come in: kopf handlers that parse, cache and wake the engine, and nothing else.

The only room that imports kopf.
"""
