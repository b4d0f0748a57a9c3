"""The plugin `pulumi-resource-kubernetes`."""

from ..provider import serve
from .plugin import Kubernetes

if __name__ == "__main__":
    serve(Kubernetes())
