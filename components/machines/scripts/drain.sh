# Takes a machine's WorkloadEntry out of the mesh and lets calls that are under way end, before the machine goes. It must not stand in
# the way of a removal: neither a dead machine nor an API server that does not answer is an error. Variables: NAMESPACE, ENTRY, SECONDS_TO_DRAIN.
set -u
if deleted=$(timeout 30 kubectl --request-timeout=10s delete workloadentry "$ENTRY" --namespace "$NAMESPACE" --ignore-not-found --output name); then
  if [ -n "$deleted" ]; then sleep "$SECONDS_TO_DRAIN"; fi
else
  echo "WorkloadEntry $NAMESPACE/$ENTRY was not taken out first; istiod removes it after its grace period" >&2
fi
