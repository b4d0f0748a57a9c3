"""The versions that the lab uses. Those of Go modules are in `go/*/go.mod`; a test holds the two
together.
"""

from __future__ import annotations

PULUMI = "v3.259.0"
KUBERNETES = "v1.35.4"
ISTIO = "1.31.0"
ISTIO_COMMIT = "eed52ebb66ad"
ISTIO_BUILD = f"{ISTIO}-{ISTIO_COMMIT}"
"""What the programs built here report: the commit is one of release 1.31, not the tag itself."""
HELM = "v3.21.4"
KIND = "v0.33.0"
COREDNS = "v1.14.7"
ETCD = "v3.6.5"
ACTIONLINT = "v1.7.12"
GATEWAY_API = "v1.6.0"
