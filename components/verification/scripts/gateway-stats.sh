# Prints what this gateway has passed on, from Envoy's own counters, a line an endpoint: a
# record of evidence.py. Of connections, Envoy counts those that it has established as requests
# (rq_total), and attempts as connections.
# Variable: GATEWAY_NAME.

# shellcheck disable=SC2034 # lib.sh reads SUBJECT
main() {
  local clusters
  local name='outbound_\.\([0-9]*\)_\.[^_]*_\.\([a-z0-9.-]*\)' endpoint='\([0-9.]*:[0-9]*\)'
  local line='"service": "\2:\1", "endpoint": "\3", "connections": \4'
  set -eu
  SUBJECT="machine $GATEWAY_NAME"
  clusters=$(direct_curl --max-time 30 http://127.0.0.1:15000/clusters) ||
    fail "Envoy does not answer on its admin port: the proxy is not running"
  sed -n "s/^$name::$endpoint::rq_total::\([1-9][0-9]*\)\$/$line/p" <<<"$clusters" | sort |
    sed "s/.*/{\"gateway_traffic\": {\"gateway\": \"$GATEWAY_NAME\", &}}/"
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
