# Calls a Service through this proxy until every expected endpoint has answered. Prints the evidence
# from Envoy's own counters:
# each line a record of evidence.py.
# Variables: CALLER (its name), MODE (fail or warn), HOST, PORT, URL_PATH ("" for a TCP connect),
# IDENTITY (the callee's declared one), TIMEOUT_S, and
# EXPECTED: endpoints (`address:port`) that must answer; for a DNS name, any of its addresses.
# CIDRS: an endpoint in one of them must answer too, or "".
# INBOUND_PORT: a port of this machine, or "". If set, requests must have reached the machine on it.
ADMIN=http://127.0.0.1:15000

declare -A before now
# What the last round of requests lacks; whether the callee's identity is the declared one.
missing='' callees='' is_identified='' last=''

in_cidrs() { # endpoint
  local cidr shift
  for cidr in $CIDRS; do
    shift=$((32 - ${cidr#*/}))
    if (($(ipv4_number "${1%:*}") >> shift == $(ipv4_number "${cidr%/*}") >> shift)); then
      return 0
    fi
  done
  return 1
}

# Envoy counts requests with 2xx to 4xx as successes for HTTP, connections for TCP.
counter() {
  if [ -n "$URL_PATH" ]; then echo rq_success; else echo cx_total; fi
}

# Prints a line an endpoint: address:port, answers so far.
answers() {
  direct_curl --max-time 5 "$ADMIN/clusters" |
    sed -n "s/^outbound|$PORT||$HOST::\([0-9.]*:[0-9]*\)::$(counter)::\([0-9]*\)\$/\1 \2/p"
}

# Prints the endpoints that an endpoint stands for: itself, or those of a gateway's DNS name.
resolve() { # endpoint
  case ${1%:*} in
  *[!0-9.]*)
    getent ahostsv4 "${1%:*}" | sed -n "s/^\([0-9.]*\) .*/\1:${1##*:}/p" | sort -u
    ;;
  *) echo "$1" ;;
  esac
}

has_answered() { # endpoint
  local address
  for address in $(resolve "$1"); do
    if [ "${now[$address]:-0}" -gt 0 ]; then return 0; fi
  done
  return 1
}

is_known() { # endpoint
  local address
  for address in $(resolve "$1"); do
    if [ -n "${now[$address]+x}" ]; then return 0; fi
  done
  return 1
}

request() {
  if [ -n "$URL_PATH" ]; then
    direct_curl --output /dev/null --max-time 3 --header 'Connection: close' \
      --write-out '%{http_code}' "http://$HOST:$PORT$URL_PATH"
  else
    timeout 3 bash -c "exec 3<>/dev/tcp/$HOST/$PORT" && echo connected
  fi
}

# Sends requests, and takes down which endpoints answered and who they are.
send_requests() {
  local endpoint count answered_in_cidr=
  # A gateway passes connections on, not requests: only several at once meet all that is behind it.
  if [[ "$EXPECTED " == *":15443 "* ]]; then
    for _ in $(seq 12); do request >/dev/null & done
    wait
  fi
  for _ in $(seq 4); do last=$(request) || true; done
  now=() missing=
  while read -r endpoint count; do
    now[$endpoint]=$((count - ${before[$endpoint]:-0}))
  done < <(answers)
  for endpoint in $EXPECTED; do has_answered "$endpoint" || missing="$missing $endpoint"; done
  if [ -n "$CIDRS" ]; then
    for endpoint in "${!now[@]}"; do
      if [ "${now[$endpoint]}" -gt 0 ] && in_cidrs "$endpoint"; then answered_in_cidr=1; fi
    done
    [ -n "$answered_in_cidr" ] || missing="$missing an-endpoint-in-${CIDRS// /-or-}"
  fi
  # A new workload's endpoints may come before its identities.
  callees=$(direct_curl --get --data-urlencode "name_regex=.*$HOST.*" \
    "$ADMIN/config_dump?resource=dynamic_active_clusters" |
    grep -o 'spiffe://[^"]*' | sort -u) || true
  is_identified=
  case " ${callees//$'\n'/ } " in *" $IDENTITY "*) is_identified=1 ;; esac
}

# Opens a connection that the proxy does not redirect. A pod without privileges cannot open one:
# there it fails if a connection of Envoy's has failed.
takes_connections() { # endpoint
  local failures
  if as_proxy true 2>/dev/null; then
    can_connect "${1%:*}" "${1##*:}" 3
    return
  fi
  failures=$(direct_curl --max-time 5 "$ADMIN/clusters" |
    sed -n "s/^outbound|$PORT||$HOST::$1::cx_connect_fail::\([0-9]*\)\$/\1/p" | head -n 1)
  [ "${failures:-0}" = 0 ]
}

# Prints why an endpoint does not answer.
explain() { # endpoint
  local address=${1%:*} number=${1##*:} error route
  error=$(takes_connections "$1" 2>&1) && {
    echo "it takes connections: does the application answer there," \
      "and is its certificate the mesh's?"
    return
  }
  error=$(grep -oiE 'refused|unreachable|no route' <<<"$error" | head -n 1)
  route=$(ip -o route get "$address" 2>/dev/null |
    grep -oE '(via [0-9.]+ )?dev [^ ]+' | head -n 1)
  if [ "$number" = 15443 ]; then
    echo "the gateway at $address takes no connection on port 15443 (${error:-no answer}):" \
      "is the port open in the firewall between the caller and the gateway," \
      "and does the gateway run?"
  else
    echo "it takes no connection (${error:-no answer}; packets leave ${route:-nowhere}):" \
      "is there a route to $address and back, and does the firewall let the caller through?"
  fi
}

# Fails with the cause why an endpoint has not answered.
diagnose() {
  local endpoint silent
  getent hosts "$HOST" >/dev/null ||
    fail "$HOST does not resolve: is DNS capture on, and does the Service exist?"
  [ ${#now[@]} -gt 0 ] ||
    fail "the proxy has no endpoint for $HOST port $PORT: does the Service select the workload's" \
      "labels, and is anything healthy behind it?"
  for endpoint in $missing; do
    [[ $endpoint == an-* ]] && continue
    [ -n "$(resolve "$endpoint")" ] ||
      fail "the gateway's name ${endpoint%:*} does not resolve here:" \
        "does DNS have it for this machine too?"
    is_known "$endpoint" ||
      fail "the proxy was not given the endpoint $endpoint for $HOST (but ${!now[*]}):" \
        "its WorkloadEntry is not healthy, the Service does not select it, or its network or the" \
        "caller's is labelled wrongly (topology.istio.io/network)"
  done
  [ -n "$missing" ] ||
    fail "$HOST is called without mutual TLS for $IDENTITY (the proxy accepts:" \
      "${callees:-nothing}): does the workload have this service account?"
  silent=${missing# } silent=${silent%% *}
  for endpoint in "${!now[@]}"; do
    if [[ $silent == an-* ]] && in_cidrs "$endpoint"; then silent=$endpoint; fi
  done
  [[ $silent != an-* ]] ||
    fail "the proxy was given no endpoint in ${CIDRS// / or } for $HOST (but ${!now[*]}):" \
      "are the workload's pods ready, and is their network labelled rightly" \
      "(topology.istio.io/network)?"
  fail "no answer from $silent for $HOST port $PORT in $TIMEOUT_S s" \
    "(last: ${last:-no connection}): $(explain "$silent")"
}

print_calls() {
  local caller_identity endpoint
  caller_identity=$(direct_curl "$ADMIN/certs" | grep -o 'spiffe://[^"]*' | head -n 1)
  for endpoint in "${!now[@]}"; do
    if [ "${now[$endpoint]}" -gt 0 ]; then
      printf '{"calls": {"service": "%s", "port": %s, "caller": "%s", "caller_identity": "%s", ' \
        "$HOST" "$PORT" "$CALLER" "$caller_identity"
      printf '"endpoint": "%s", "peer": "%s", "how": "by-chance", "answers": %s}}\n' \
        "$endpoint" "$IDENTITY" "${now[$endpoint]}"
    fi
  done | sort
}

print_inbound() {
  local cluster="inbound|$INBOUND_PORT||::[0-9.]*:$INBOUND_PORT" count
  count=$(direct_curl --max-time 5 "$ADMIN/clusters" |
    sed -n "s/^$cluster::$(counter)::\([0-9]*\)\$/\1/p" | head -n 1)
  [ "${count:-0}" -gt 0 ] ||
    fail "no request from a pod has reached port $INBOUND_PORT: check the route from the pods," \
      "or from the network's gateway, to this machine"
  printf '{"calls": {"service": "%s", "port": %s, "caller": "%s", "machine": "%s", ' \
    "$HOST" "$PORT" "$CALLER" "${CALLER#machine }"
  printf '"kind": "counter", "how": "by-chance", "answers": %s}}\n' "$count"
}

# shellcheck disable=SC2034 # lib.sh reads SUBJECT and FAILURE_STATUS
main() {
  local endpoint count deadline=$((SECONDS + TIMEOUT_S))
  SUBJECT=$CALLER
  if [ "$MODE" = warn ]; then FAILURE_STATUS=0; fi
  direct_curl --max-time 5 --output /dev/null "$ADMIN/server_info" ||
    fail "Envoy does not answer on its admin port: the proxy is not running"
  while read -r endpoint count; do before[$endpoint]=$count; done < <(answers)
  while :; do
    send_requests
    if [ -z "$missing" ] && [ -n "$is_identified" ]; then break; fi
    if ((SECONDS >= deadline)); then diagnose; fi
    sleep 0.3
  done
  print_calls
  if [ -n "$INBOUND_PORT" ]; then print_inbound; fi
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
