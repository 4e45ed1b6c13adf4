"""A whole Kubernetes cluster on one Linux machine without root: control plane, process nodes, service addresses, names, Gateway.

In: a folder of models and a state folder. Out: a kubeconfig and a Gateway on loopback. It knows nothing of the operator.
"""
