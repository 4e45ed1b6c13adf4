"""Process nodes: Node objects whose pods are processes, each with a root folder, an address and a life like a kubelet gives it.

Pods bound to our nodes enter; processes and pod statuses leave. Only what Ergon's pods use is here, but that faithfully.
"""
