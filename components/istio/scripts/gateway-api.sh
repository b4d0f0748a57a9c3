# Installs the Gateway API's CRDs where the cluster has none; those of somebody else are left alone. istiod reads them when it starts.
# Variable: SOURCE (a file, a directory or a URL).
set -eu
crds=$(for kind in gatewayclasses gateways grpcroutes httproutes referencegrants tlsroutes; do echo "crd/$kind.gateway.networking.k8s.io"; done)
# shellcheck disable=SC2086
if ! kubectl get $crds >/dev/null 2>&1; then
  if [ -d "$SOURCE" ]; then
    for file in "$SOURCE"/*.yaml; do echo --- && cat "$file"; done | kubectl apply --server-side --filename - >/dev/null
  else
    kubectl apply --server-side --filename "$SOURCE" >/dev/null
  fi
  kubectl wait --for=condition=Established --timeout=60s $crds >/dev/null
  if kubectl get deployment istiod --namespace istio-system >/dev/null 2>&1; then
    kubectl rollout restart deployment/istiod --namespace istio-system >/dev/null
    kubectl rollout status deployment/istiod --namespace istio-system --timeout=180s >/dev/null
  fi
fi
