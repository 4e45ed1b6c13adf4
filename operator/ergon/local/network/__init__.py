"""Service addresses and cluster names: one process that follows Services and EndpointSlices, proxies TCP and answers DNS."""
