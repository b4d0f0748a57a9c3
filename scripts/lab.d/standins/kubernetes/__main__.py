"""The plugin `pulumi-resource-kubernetes`."""

from standins.kubernetes.plugin import Kubernetes
from standins.provider import serve

if __name__ == "__main__":
    serve(Kubernetes())
