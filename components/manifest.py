"""The type of Kubernetes manifests. Pure."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]
"""A Kubernetes object, or a part of one, as its API takes it.

Values of Helm charts, which become objects, and Istio's configuration in ConfigMaps included.
"""
