"""Stand-in for gke-gcloud-auth-plugin where it is not installed: `--use_application_default_credentials`.

`transcripts.yaml` has what the real one prints, and tests hold this one to it.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SCOPES = "https://www.googleapis.com/auth/cloud-platform https://www.googleapis.com/auth/userinfo.email"
VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
ATTEMPTS = 4


class Refused(Exception):
    """Google gives no token."""


def main(words: list[str]) -> None:
    if words != ["--use_application_default_credentials"]:
        sys.exit(f"the stand-in for gke-gcloud-auth-plugin has no options {words}")
    try:
        answer = token(Path(os.environ[VARIABLE]))
    except Refused as error:
        prefix = "print credential failed with error: Failed to retrieve access token:: getting google default token failed"
        print(
            f"F{time.strftime('%m%d %H:%M:%S')}.000000 {os.getpid():7} cred.go:145] {prefix} after multiple retries: {error}",
            file=sys.stderr,
        )
        sys.exit(1)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=answer["expires_in"])
    credential = {
        "kind": "ExecCredential",
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "spec": {"interactive": False},
        "status": {"expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "token": answer["access_token"]},
    }
    print(json.dumps(credential, indent=4), end="")


def token(file: Path) -> dict[str, Any]:
    """Return an access token for a service account's key (RFC 7523, section 2.1). Raises Refused."""
    try:
        credentials = json.loads(file.read_text())
    except FileNotFoundError:
        cause = f"google: error getting credentials using {VARIABLE} environment variable: open {file}: no such file or directory"
        raise Refused(f"cannot construct google default token source: {cause}") from None
    now = int(time.time())
    claims = {"iss": credentials["client_email"], "scope": SCOPES, "aud": credentials["token_uri"], "iat": now, "exp": now + 3600}
    text = f"{encoded({'alg': 'RS256', 'typ': 'JWT'})}.{encoded(claims)}"
    key = serialization.load_pem_private_key(credentials["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = base64.urlsafe_b64encode(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())).decode().rstrip("=")
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": f"{text}.{signature}"}
    for _ in range(ATTEMPTS):
        try:
            data = urllib.parse.urlencode(form).encode()
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(credentials["token_uri"], data) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            cause = f"oauth2: cannot fetch token: {error.code} {error.reason}\nResponse: {error.read().decode()}"
    raise Refused(f"cannot retrieve default token from google default token source: {cause}")


def encoded(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


main(sys.argv[1:])
