"""A default install of Istio in place of the lab's own mesh: plain Helm, and no value but what the lab's images and Envoy need.

So it has no revision, its network has no name, and without Istio's CNI plugin its sidecars redirect
traffic by themselves.
"""

from __future__ import annotations

from components.names import EASTWEST_GATEWAY, ISTIO_NAMESPACE, ISTIOD_DEPLOYMENT
from tests.support import plain_helm
from tests.support.lab import Lab

BASE = "istio-base"


def replace_own_mesh(lab: Lab) -> None:
    """Remove the mesh of a lab that is up, and install Istio as its documentation does. Nothing but `lab down` is of use to the lab then.

    The agents and sidecars of the lab's stack trust the certificate authority that is gone, so none is in the new mesh.
    """
    lab.useless = True
    plain_helm.uninstall(lab, ISTIO_NAMESPACE, EASTWEST_GATEWAY, ISTIOD_DEPLOYMENT, BASE)
    lab.run("kubectl", "create", "namespace", ISTIO_NAMESPACE)
    charts = plain_helm.charts(lab)
    plain_helm.install(lab, ISTIO_NAMESPACE, BASE, charts / "base", {})
    values = plain_helm.istiod_values(lab, {"global": plain_helm.IMAGES})
    plain_helm.install(lab, ISTIO_NAMESPACE, ISTIOD_DEPLOYMENT, charts / "istiod", values)
