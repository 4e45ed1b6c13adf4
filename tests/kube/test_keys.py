"""A pool's secrets: strong, trusted by name, and silent."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from ergon.kube import keys
from ergon.kube.builders import ServerSettings, key_secret

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_certificate_is_for_every_pod_and_ten_years() -> None:
    material = keys.generate(keys.server_names("l4", "ergon-system"), NOW)
    certificate = x509.load_pem_x509_certificate(material.certificate.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert "*.ergon-l4.ergon-system.svc" in names
    assert certificate.not_valid_after_utc - NOW == timedelta(days=3650)
    assert certificate.not_valid_before_utc <= NOW - timedelta(days=1)  # a clock that was an hour ahead when it was made
    ssl.create_default_context(cadata=material.certificate)


def test_two_pools_share_nothing() -> None:
    first, second = (keys.generate(["x"], NOW) for _ in range(2))
    assert len({first.admin_key, second.admin_key, first.store_password, second.store_password}) == 4
    assert len(first.admin_key) == 48


def test_material_has_no_text_form() -> None:
    material = keys.generate(["x"], NOW)
    assert material.admin_key not in f"{material!r} {material}"


@pytest.mark.parametrize("damage", [None, 7, "not base64!", "/////w=="])
def test_a_damaged_secret_is_told_by_key_and_without_its_value(damage: object) -> None:
    secret = key_secret("l4", ServerSettings(), keys.generate(["x"], NOW))
    secret["data"]["rclone-password"] = damage
    with pytest.raises(ValueError, match="Secret ergon-l4-keys: rclone-password is missing or unreadable"):
        keys.KeyMaterial.from_secret(secret)
