"""Grammars of texts that leave the program: to a shell, a cluster, a registry or a cloud. Pure.

Each is as narrow as what reads the text. So none of them is an option, a command or two lines.
"""

from __future__ import annotations

import re

KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A DNS label: the names of namespaces, ServiceAccounts and others."""
_DOMAIN = re.compile(rf"(?=.{{1,253}}$){KUBERNETES_NAME.pattern}(\.{KUBERNETES_NAME.pattern})*")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# RFC 6335: at most 15 characters, a letter, no two dashes in a row.
_PORT_NAME = re.compile(r"(?=[-0-9]*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
# distribution/reference: registry with its port, path, tag, digest.
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REGISTRY = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?"
_REPOSITORY = rf"(?:{_REGISTRY}/)?{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_IMAGE = re.compile(rf"{_REPOSITORY}(:{_TAG})?(@sha256:[0-9a-f]{{64}})?")
_HUB = re.compile(rf"{_REGISTRY}|{_REPOSITORY}")
# SPIFFE-ID, 2.1; Istio takes capital letters too.
_TRUST_DOMAIN = re.compile(r"[A-Za-z0-9._-]{1,255}")
# RFC 3986; { and } are of placeholders.
_URL = re.compile(r"[a-z]+://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%{}]+")
_URL_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")


def is_domain(text: str) -> bool:
    """Return whether a text is one or more DNS labels: a name of objects of Kubernetes, a
    domain.
    """
    return _DOMAIN.fullmatch(text) is not None


def is_service_name(text: str) -> bool:
    """Return whether a text is a DNS label that begins with a letter."""
    return _SERVICE_NAME.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    """Return whether a text is a valid value of a Kubernetes label; it may be empty."""
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


def is_variable(text: str) -> bool:
    """Return whether a text is a name of a variable, for shells and for systemd."""
    return _VARIABLE.fullmatch(text) is not None


def is_port_name(text: str) -> bool:
    """Return whether a text can name a port of a container."""
    return _PORT_NAME.fullmatch(text) is not None


def is_image(text: str) -> bool:
    """Return whether a text names an image of containers: `registry/path:tag@sha256:…`."""
    return _IMAGE.fullmatch(text) is not None


def is_hub(text: str) -> bool:
    """Return whether a text names a registry, a path, or both, that images are in."""
    return _HUB.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Return whether a text is a tag of images."""
    return re.fullmatch(_TAG, text) is not None


def is_trust_domain(text: str) -> bool:
    """Return whether a text is a trust domain: the first part of SPIFFE identities."""
    return _TRUST_DOMAIN.fullmatch(text) is not None


def is_url(text: str) -> bool:
    """Return whether a text is a URL, with or without placeholders in braces."""
    return _URL.fullmatch(text) is not None


def has_credentials(url: str) -> bool:
    """Return whether a URL holds a user or a password. kubectl takes one without a scheme."""
    return re.match(r"([^:/?#@]+://)?[^/?#]*@", url) is not None


def is_url_path(text: str) -> bool:
    """Return whether a text is the path of a URL, with or without a query."""
    return _URL_PATH.fullmatch(text) is not None


def is_file(text: str) -> bool:
    """Return whether a text can be the path of a file: one line that is no option of a program."""
    return bool(text) and text.isprintable() and not text.startswith("-")
