"""A real `rclone rcd` for each test, and real sources for each module."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ergon.store import ModelStore
from tests.store.rclone import PASSWORD, USER, Rclone, Sources, start_store
from tests.triton.environment import environment


@dataclass
class Volume:
    """A store's process, and its folders as this test sees them."""

    rclone: Rclone
    models: Path
    sources: Path
    certificate: Path

    def client(self, **changes: str) -> ModelStore:
        settings = {"user": USER, "password": PASSWORD, "ca_pem": self.certificate.read_text()} | changes
        return ModelStore(f"127.0.0.1:{self.rclone.port}", models=str(self.models), sources=str(self.sources), **settings)


@pytest.fixture(scope="session")
def rclone_program() -> Path:
    return environment() / "bin" / "rclone"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate that names no address, as a pool has one, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def sources(rclone_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    served = Sources(rclone_program, tmp_path_factory.mktemp("sources"))
    yield served
    served.stop()


@pytest.fixture(scope="module")
def s3(sources: Sources) -> Rclone:
    return sources.serve_s3()


@pytest.fixture
def volume(rclone_program: Path, certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[Volume]:
    yield from run_volume(rclone_program, certificate, tmp_path, small=False)


@pytest.fixture
def small_volume(rclone_program: Path, certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[Volume]:
    """A volume of 2 MiB."""
    yield from run_volume(rclone_program, certificate, tmp_path, small=True)


@pytest.fixture
async def store(volume: Volume) -> AsyncIterator[ModelStore]:
    client = volume.client()
    yield client
    await client.close()


def run_volume(program: Path, certificate: tuple[Path, Path], folder: Path, *, small: bool) -> Iterator[Volume]:
    models, sources = folder / "models", folder / "sources"
    models.mkdir()
    sources.mkdir()
    rclone = start_store(program, folder, *certificate, tmpfs=models if small else None)
    volume = Volume(rclone, models, sources, certificate[0])
    yield volume
    volume.rclone.stop()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ergon-test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("ergon-test.ergon-system.svc")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    crt, pem = folder / "tls.crt", folder / "tls.key"
    crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return crt, pem
