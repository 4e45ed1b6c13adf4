"""The cluster's own certificate authority, the certificates under it, and the kubeconfigs that carry them."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ergon.local.state import API_ADDRESS, API_PORT, API_SERVICE_ADDRESS, Layout, write_atomically

_VALID = datetime.timedelta(days=365)
_CLOCK_SKEW = datetime.timedelta(days=1)
"""A machine's clock may be set back by hours while its cluster runs."""


@dataclass(frozen=True)
class Identity:
    """A PEM certificate with its PEM private key."""

    certificate: bytes
    key: bytes


class Authority:
    """A certificate authority that lives as long as its cluster."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ergon-local")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())

    @property
    def certificate(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, user: str, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = ()) -> Identity:
        """A client certificate for `user` in `groups`; with `hosts` (names or addresses) also one to serve with."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        builder = self._builder(x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, user)]), key.public_key())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        return Identity(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _pem(key))

    def _builder(self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public_key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - _CLOCK_SKEW).not_valid_after(now + _VALID)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(identifier, critical=False)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def create_all(layout: Layout, api_port: int, node_addresses: dict[str, str]) -> None:
    """Write every key, certificate and kubeconfig of a new cluster.

    `node_addresses` are node names with their addresses, for the certificates of the nodes' log endpoints.
    """
    layout.pki.mkdir(parents=True, exist_ok=True)
    layout.pki.chmod(0o700)
    authority = Authority()
    _write(layout.pki / "ca.crt", authority.certificate)
    service_accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(layout.pki / "service-accounts.key", _pem(service_accounts))
    api_hosts = (
        *("localhost", "127.0.0.1", API_ADDRESS, API_SERVICE_ADDRESS),
        *("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
    )
    _store(layout.pki / "apiserver", authority.issue("kube-apiserver", hosts=api_hosts))
    _store(layout.pki / "kubelet-client", authority.issue("kube-apiserver-kubelet-client", ("system:masters",)))
    for node, address in node_addresses.items():
        _store(layout.pki / f"node-{node}", authority.issue(f"system:node:{node}", ("system:nodes",), (node, address)))
    inside = f"https://{API_ADDRESS}:{API_PORT}"
    users = {
        "kube-controller-manager": ("system:kube-controller-manager", ()),
        "kube-scheduler": ("system:kube-scheduler", ()),
        "node-agent": ("system:node-agent", ("system:masters",)),
    }
    for file, (user, groups) in users.items():
        text = kubeconfig(layout.name, inside, authority.certificate, authority.issue(user, groups))
        write_atomically(layout.pki / f"{file}.kubeconfig", text, 0o600)
    admin = authority.issue("kubernetes-admin", ("system:masters",))
    write_atomically(layout.inner_kubeconfig, kubeconfig(layout.name, inside, authority.certificate, admin), 0o600)
    outside = f"https://127.0.0.1:{api_port}"
    write_atomically(layout.kubeconfig, kubeconfig(layout.name, outside, authority.certificate, admin), 0o600)


def kubeconfig(cluster: str, server: str, authority: bytes, identity: Identity) -> str:
    """A kubeconfig that holds all it needs: no path of the machine in it."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    context = f"ergon-{cluster}"
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": context, "cluster": {"server": server, "certificate-authority-data": encoded(authority)}}],
            "users": [
                {
                    "name": context,
                    "user": {
                        "client-certificate-data": encoded(identity.certificate),
                        "client-key-data": encoded(identity.key),
                    },
                }
            ],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
            "current-context": context,
        },
        sort_keys=False,
    )


def _store(path: Path, identity: Identity) -> None:
    _write(path.with_name(f"{path.name}.crt"), identity.certificate)
    _write(path.with_name(f"{path.name}.key"), identity.key)


def _write(path: Path, data: bytes) -> None:
    write_atomically(path, data.decode(), 0o600)
