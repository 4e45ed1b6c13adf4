"""The control plane's command lines: etcd, kube-apiserver, kube-controller-manager, kube-scheduler."""

from __future__ import annotations

from ergon.local.state import API_ADDRESS, API_PORT, POD_NETWORK, SERVICE_NETWORK, Layout

ETCD_URL = f"http://{API_ADDRESS}:2379"
NODE_MONITOR_GRACE_SECONDS = 20
"""How long a silent node counts as alive; half of the default, for a person who watches."""


def commands(layout: Layout, binaries: dict[str, str]) -> dict[str, list[str]]:
    """Command lines by component, in the order of starting; `binaries` gives each component's path."""
    arguments = {
        "etcd": _etcd(layout),
        "kube-apiserver": _api_server(layout),
        "kube-controller-manager": _controller_manager(layout),
        "kube-scheduler": _scheduler(layout),
    }
    return {name: [binaries[name], *given] for name, given in arguments.items()}


def _etcd(layout: Layout) -> list[str]:
    peer = f"http://{API_ADDRESS}:2380"
    return [
        f"--data-dir={layout.etcd}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={ETCD_URL}",
        f"--advertise-client-urls={ETCD_URL}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--quota-backend-bytes=4294967296",
        "--auto-compaction-retention=30m",
        "--log-level=warn",
    ]


def _api_server(layout: Layout) -> list[str]:
    pki = layout.pki
    issuer = "https://kubernetes.default.svc.cluster.local"
    return [
        f"--etcd-servers={ETCD_URL}",
        f"--bind-address={API_ADDRESS}",
        f"--advertise-address={API_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--service-account-issuer={issuer}",
        f"--api-audiences={issuer}",
        f"--service-account-key-file={pki}/service-accounts.key",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--max-requests-inflight=3000",
        "--max-mutating-requests-inflight=1000",
        "--profiling=false",
        "--v=1",
    ]


def _controller_manager(layout: Layout) -> list[str]:
    pki = layout.pki
    return [
        f"--kubeconfig={pki}/kube-controller-manager.kubeconfig",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/service-accounts.key",
        "--use-service-account-credentials=true",
        f"--cluster-cidr={POD_NETWORK}",
        "--allocate-node-cidrs=false",
        f"--bind-address={API_ADDRESS}",
        "--leader-elect=false",
        f"--node-monitor-grace-period={NODE_MONITOR_GRACE_SECONDS}s",
        "--node-monitor-period=2s",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--concurrent-statefulset-syncs=10",
        "--profiling=false",
    ]


def _scheduler(layout: Layout) -> list[str]:
    return [
        f"--kubeconfig={layout.pki}/kube-scheduler.kubeconfig",
        f"--bind-address={API_ADDRESS}",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    ]
