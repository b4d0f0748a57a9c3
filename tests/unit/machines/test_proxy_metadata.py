"""What a state leaves out of a ProxyConfig comes back as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.local import scripting
from components.machines import bootstrap
from components.machines.bundle import Bundle, Owner
from components.machines.proxy_metadata import complete, shortened
from tests.support.samples import FACTS, PRODUCT

OWNER = Owner("istio-vm-mesh", "prod", "product-1", "r-1", "shop", "product")


def proxy(network: str = "pods", **changes: Any) -> dict[str, Any]:
    return bootstrap.proxy_config(FACTS, PRODUCT.model_copy(update=changes), network)


def without(key: str) -> dict[str, Any]:
    config = proxy()
    del config["proxyMetadata"][key]
    return config


CONFIGURATIONS = {
    "usual": proxy(),
    "another network": proxy("far"),
    "no network": proxy(""),
    "no ports": proxy(ports={}),
    "labels of an application": proxy(labels={"app.kubernetes.io/name": "catalog", "app.kubernetes.io/version": "v7"}),
    "a canonical name of the user's": proxy(labels={"app": "product", "service.istio.io/canonical-name": "catalog"}),
    "another account": proxy(service_account=PRODUCT.service_account.model_copy(update={"name": "catalog"})),
    "another probe": proxy(probe=PRODUCT.probe.model_copy(update={"period": 7, "failure_threshold": 9})),
    "another port of the agent": {**proxy(), "statusPort": 15099},
    "another control plane": {**proxy(), "discoveryAddress": "istiod-blue.mesh-system.svc:15012"},
    "no control plane": {key: value for key, value in proxy().items() if key != "discoveryAddress"},
    "without an account": without("SERVICE_ACCOUNT"),
    "without labels": without("ISTIO_METAJSON_LABELS"),
    "nothing": {},
}


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_proxy_comes_back_from_a_state_as_it_was(config: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(shortened(config), sort_keys=True))
    assert complete(stored) == config
    assert complete(config) == config, "as an earlier version stored it"


def test_a_state_says_once_what_the_variables_of_an_agent_repeat() -> None:
    text = scripting.encode(Bundle(OWNER, proxy(), "10.0.0.7", "10.0.0.2", "", ""))
    assert '"labels":{"app":"product","version":"v1"},' in text and '"ports":{"http":8080,"tcp-db":5432}' in text
    assert "canonical" not in text and "CANONICAL" not in text and "ISTIO_METAJSON_LABELS" not in text
    assert scripting.decode(Bundle, json.loads(text)).proxy == proxy()
