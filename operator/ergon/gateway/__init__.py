"""The gateway: one address for a task, answered by the smallest model that can, and requests held while a sleeping model wakes.

In: requests over HTTP and gRPC, and by watching what the API server says of routes, models and endpoints. Out: requests to the
servers, `POST /wake` to the operator, answers. It keeps no state that a second gateway would miss, and writes nothing.
"""
