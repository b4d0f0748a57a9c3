# Makes a kind cluster, or keeps one of the name that is whole and answers; one that a killed run left half-made is made again: it may
# answer and still lack its last steps, so a mark on its node says that kind came to its end.
# Prints `kubeconfig=<base64>` and `address=<the node's in its Docker network>`. Variables: NAME, IMAGE, NETWORK, CONFIG_BASE64.
set -eu
kubeconfig=$(mktemp)
trap 'rm -f "$kubeconfig"' EXIT
log=$(mktemp)
node=$NAME-control-plane
mark=/kind/istio-vm-mesh.whole
if kind get clusters 2>/dev/null | grep -qx "$NAME"; then
  kind get kubeconfig --name "$NAME" >"$kubeconfig" 2>/dev/null || true
  if ! docker exec "$node" test -e "$mark" 2>/dev/null ||
    ! kubectl --kubeconfig "$kubeconfig" --request-timeout=10s wait --for=condition=Ready node --all --timeout=20s >/dev/null 2>&1; then
    kind delete cluster --name "$NAME" >/dev/null 2>&1
  fi
fi
if ! kind get clusters 2>/dev/null | grep -qx "$NAME"; then
  if ! printf %s "$CONFIG_BASE64" | base64 -d | KIND_EXPERIMENTAL_DOCKER_NETWORK=$NETWORK kind create cluster --name "$NAME" --image "$IMAGE" --config - \
    --kubeconfig "$kubeconfig" --wait 180s --retain >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    echo "kind could not make the cluster $NAME from $IMAGE: see above, and 'docker logs $node'" >&2
    rm -f "$log"
    exit 1
  fi
fi
rm -f "$log"
docker exec "$node" touch "$mark"
kind get kubeconfig --name "$NAME" >"$kubeconfig"
echo "kubeconfig=$(base64 -w0 <"$kubeconfig")"
echo "address=$(docker inspect --format "{{(index .NetworkSettings.Networks \"$NETWORK\").IPAddress}}" "$node")"
