"""The secrets of one pool: Triton's admin key, the store's credentials and its certificate."""

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CERTIFICATE_DAYS = 3650
_FIELDS = {
    "ergon-key": "admin_key",
    "rclone-user": "store_user",
    "rclone-password": "store_password",
    "tls.crt": "certificate",
    "tls.key": "private_key",
}


@dataclass(frozen=True, repr=False)
class KeyMaterial:
    """What a pool's Secret holds. It has no text form, so that it cannot slip into a log."""

    admin_key: str
    store_user: str
    store_password: str
    certificate: str
    private_key: str

    def __repr__(self) -> str:
        return "KeyMaterial(…)"

    def entries(self) -> dict[str, str]:
        """As the Secret's keys and plain values."""
        return {key: getattr(self, field) for key, field in _FIELDS.items()}

    @classmethod
    def from_secret(cls, secret: Mapping[str, Any]) -> Self:
        """Read back from the pool's Secret. Raises ValueError naming the key that is missing or unreadable (never its value)."""
        data = secret.get("data") or {}
        values = {}
        for key, field in _FIELDS.items():
            try:
                values[field] = base64.b64decode(data[key], validate=True).decode()
            except (KeyError, TypeError, binascii.Error, UnicodeDecodeError) as error:
                name = (secret.get("metadata") or {}).get("name", "")
                raise ValueError(
                    f"Secret {name}: {key} is missing or unreadable; delete the Secret to have it made anew"
                ) from error
        return cls(**values)


def generate(names: list[str], now: datetime | None = None) -> KeyMaterial:
    """New material, with a self-signed certificate for the given DNS names. Clients trust that very certificate, not a chain."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    certificate = _certificate(key, names, now or datetime.now(UTC)).public_bytes(serialization.Encoding.PEM).decode()
    return KeyMaterial(secrets.token_hex(24), "ergon", secrets.token_hex(24), certificate, private)


def server_names(pool: str, namespace: str) -> list[str]:
    """DNS names of a pool's servers, for the certificate: every pod of the headless Service, and the Service itself."""
    service = f"ergon-{pool}.{namespace}"
    return [f"ergon-{pool}", service, f"{service}.svc", f"*.{service}", f"*.{service}.svc", f"*.{service}.svc.cluster.local"]


def _certificate(key: ec.EllipticCurvePrivateKey, names: list[str], now: datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of nodes differ, and are set right by hours
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
