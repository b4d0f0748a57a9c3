"""Google service accounts, and the access tokens that stand for them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.authority import pem

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
USERINFO_EMAIL = "https://www.googleapis.com/auth/userinfo.email"


@dataclass(frozen=True)
class Account:
    """A Google service account."""

    email: str
    unique_id: str


@dataclass(frozen=True)
class AccessToken:
    """A token: whose it is, and its scopes."""

    account: Account
    scopes: frozenset[str]

    @property
    def user(self) -> str:
        """The user as GKE's API server names it: by its address only where the token may tell it.

        Source: docs.cloud.google.com/kubernetes-engine, "Authorize actions in clusters using RBAC".
        """
        return self.account.email if USERINFO_EMAIL in self.scopes else self.account.unique_id


def address(name: str) -> str:
    """Return the address of the account with this name."""
    return f"{name}@my-project.iam.gserviceaccount.com"


class Identities:
    """The accounts of a project, and the access tokens that are valid."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._tokens: dict[str, AccessToken] = {}
        self._keys: dict[str, rsa.RSAPrivateKey] = {}
        self.accounts: dict[str, Account] = {}

    def account(self, name: str) -> Account:
        """Return the account with this name, a new one where there is none."""
        email = address(name)
        with self._lock:
            return self.accounts.setdefault(email, Account(email, str(100_000_000_000_000_000_000 + next(self._numbers))))

    def issue(self, account: Account, scopes: Collection[str]) -> str:
        """Return a new access token."""
        with self._lock:
            text = f"ya29.{account.unique_id}-{next(self._numbers)}"
        self.add(text, account, scopes)
        return text

    def add(self, text: str, account: Account, scopes: Collection[str]) -> None:
        """Accept a text as an access token."""
        self._tokens[text] = AccessToken(account, frozenset(scopes))

    def token(self, text: str) -> AccessToken | None:
        """Return what an access token stands for; None: it is not valid."""
        return self._tokens.get(text)

    def bearer(self, header: str | None) -> AccessToken | None:
        """Return what the header `Authorization` stands for."""
        scheme, _, text = (header or "").partition(" ")
        return self.token(text) if scheme == "Bearer" else None

    def public_key(self, email: str) -> rsa.RSAPublicKey | None:
        """Return the public half of an account's key; None where it has none."""
        key = self._keys.get(email)
        return key.public_key() if key else None

    def write_key(self, account: Account, token_uri: str, file: Path) -> Path:
        """Write a key of the account, as Google Cloud gives it to users, and return its path."""
        key = rsa.generate_private_key(65537, 2048)
        self._keys[account.email] = key
        content = {
            "type": "service_account",
            "project_id": "my-project",
            "private_key_id": "1",
            "private_key": pem(key).decode(),
            "client_email": account.email,
            "client_id": account.unique_id,
            "token_uri": token_uri,
        }
        file.write_text(json.dumps(content))
        return file
