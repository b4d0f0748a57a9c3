"""Tokens and certificates as time and mistakes make them."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

DAY = 24 * 3600


def expired(token: str, key: str) -> str:
    """The same token a day later: signed by the cluster's own key, as the API server does."""
    header, payload, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    now = int(time.time())
    claims |= {"iat": now - DAY - 3600, "nbf": now - DAY - 3600, "exp": now - DAY}
    text = json.dumps(claims, separators=(",", ":"))
    signed = f"{header}.{_base64(text.encode())}"
    private = serialization.load_pem_private_key(key.encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return f"{signed}.{_base64(private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def end(certificate: str) -> float:
    """When a certificate ends, in seconds since 1970."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc.timestamp()


def authority(name: str) -> tuple[str, str]:
    """The certificate and the key of a new certificate authority."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            subject, subject, key.public_key(), x509.random_serial_number(), now - timedelta(hours=1), now + timedelta(days=1)
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), key.private_bytes(*plain).decode()


def issuer(certificate: str) -> str:
    """The organization that signed a certificate."""
    names = x509.load_pem_x509_certificate(certificate.encode()).issuer.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    return str(names[0].value)
