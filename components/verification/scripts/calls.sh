# Calls a Service through this proxy until every wanted endpoint has answered, and prints the evidence from Envoy's own counters:
#   call <caller> <caller's identity> <host>:<port> <endpoint> <callee's identity> <answers>
# Variables: CALLER (its name), MODE (fail or warn), HOST, PORT, URL_PATH ("" for a TCP connect), IDENTITY (the callee's declared one), WANTED (endpoints, `address:port`;
# of one by name one address must answer),
# RANGES (an endpoint in one of them must answer too, or ""), PATIENCE (seconds). ANSWERED (a port, or ""): this machine's own; that it has
# been called there is proven too, and printed as `answered <caller> <requests>`.
admin=http://127.0.0.1:15000
cluster="outbound|$PORT||$HOST"

stop() {
  echo "$CALLER: $*" >&2
  [ "$MODE" = warn ] || exit 1
  exit 0
}

number() { # address -> a number
  local a b c d
  IFS=. read -r a b c d <<<"$1"
  echo $(((a << 24) + (b << 16) + (c << 8) + d))
}

in_ranges() { # endpoint
  local range shift
  for range in $RANGES; do
    shift=$((32 - ${range#*/}))
    if (($(number "${1%:*}") >> shift == $(number "${range%/*}") >> shift)); then return 0; fi
  done
  return 1
}

# One line an endpoint: address:port, answers so far. Envoy counts requests with 2xx to 4xx as successes for HTTP, connections for TCP.
answers() {
  local counter=rq_success
  [ -n "$URL_PATH" ] || counter=cx_total
  curl --silent --max-time 5 "$admin/clusters" | sed -n "s/^$cluster::\([0-9.]*:[0-9]*\)::$counter::\([0-9]*\)\$/\1 \2/p"
}

# The endpoints that an endpoint stands for: itself, or those of a gateway that is known by name.
meant() { # endpoint
  case ${1%:*} in
  *[!0-9.]*) getent ahostsv4 "${1%:*}" | sed -n "s/^\([0-9.]*\) .*/\1:${1##*:}/p" | sort -u ;;
  *) echo "$1" ;;
  esac
}

answered() { # endpoint
  local each
  for each in $(meant "$1"); do if [ "${now[$each]:-0}" -gt 0 ]; then return 0; fi; done
  return 1
}

given() { # endpoint
  local each
  for each in $(meant "$1"); do if [ -n "${now[$each]+known}" ]; then return 0; fi; done
  return 1
}

once() {
  if [ -n "$URL_PATH" ]; then
    curl --silent --output /dev/null --max-time 3 --header 'Connection: close' --write-out '%{http_code}' "http://$HOST:$PORT$URL_PATH"
  else
    timeout 3 bash -c "exec 3<>/dev/tcp/$HOST/$PORT" && echo connected
  fi
}

# Why the wanted endpoint $1 does not answer: tried as istio-proxy, whose connections the proxy does not capture.
why() {
  local address=${1%:*} port=${1##*:} said way
  said=$(runuser -u istio-proxy -- timeout 3 bash -c "exec 3<>/dev/tcp/$address/$port" 2>&1) && {
    echo "it takes connections: does the application answer there, and is its certificate the mesh's?"
    return
  }
  said=$(grep -oiE 'refused|unreachable|no route' <<<"$said" | head -n 1)
  way=$(ip -o route get "$address" 2>/dev/null | grep -oE '(via [0-9.]+ )?dev [^ ]+' | head -n 1)
  if [ "$port" = 15443 ]; then
    echo "the gateway at $address takes no connection on port 15443 (${said:-no answer}): is the port open in the firewall between the caller and the gateway, and does the gateway run?"
  else
    echo "it takes no connection (${said:-no answer}; packets leave ${way:-nowhere}): is there a route to $address and back, and does the firewall let the caller through?"
  fi
}

declare -A before now
deadline=$((SECONDS + PATIENCE))
last=
curl --silent --max-time 5 --output /dev/null "$admin/server_info" || stop "Envoy does not answer on its admin port: the proxy is not running"
while read -r endpoint count; do before[$endpoint]=$count; done < <(answers)
while :; do
  # A gateway passes connections on, not requests: only several at once meet every endpoint behind it.
  if [[ "$WANTED " == *":15443 "* ]]; then
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do once >/dev/null & done
    wait
  fi
  for _ in 1 2 3 4; do last=$(once) || true; done
  now=()
  while read -r endpoint count; do now[$endpoint]=$((count - ${before[$endpoint]:-0})); done < <(answers)
  missing=
  for endpoint in $WANTED; do answered "$endpoint" || missing="$missing $endpoint"; done
  if [ -n "$RANGES" ]; then
    found=
    for endpoint in "${!now[@]}"; do if [ "${now[$endpoint]}" -gt 0 ] && in_ranges "$endpoint"; then found=1; fi; done
    [ -n "$found" ] || missing="$missing an-endpoint-in-${RANGES// /-or-}"
  fi
  # A new workload's endpoints may come before its identities.
  callees=$(curl --silent --get --data-urlencode "name_regex=.*$HOST.*" "$admin/config_dump?resource=dynamic_active_clusters" | grep -o 'spiffe://[^"]*' | sort -u) || true
  known=
  case " ${callees//$'\n'/ } " in *" $IDENTITY "*) known=1 ;; esac
  [ -n "$missing" ] || [ -z "$known" ] || break
  if ((SECONDS >= deadline)); then
    getent hosts "$HOST" >/dev/null || stop "$HOST does not resolve: is DNS capture on, and does the Service exist?"
    [ ${#now[@]} -gt 0 ] || stop "the proxy has no endpoint for $HOST port $PORT: does the Service select the workload's labels, and is anything healthy behind it?"
    for endpoint in $missing; do
      [[ $endpoint == an-* ]] && continue
      [ -n "$(meant "$endpoint")" ] || stop "the gateway's name ${endpoint%:*} does not resolve here: does DNS have it for this machine too?"
      given "$endpoint" ||
        stop "the proxy was not given the endpoint $endpoint for $HOST (but ${!now[*]}): its WorkloadEntry is not healthy, the Service does not select it, or its network or the caller's is labelled wrongly (topology.istio.io/network)"
    done
    [ -n "$missing" ] || stop "$HOST is called without mutual TLS for $IDENTITY (the proxy accepts: ${callees:-nothing}): does the workload have this service account?"
    tried=${missing# } tried=${tried%% *}
    for endpoint in "${!now[@]}"; do if [[ $tried == an-* ]] && in_ranges "$endpoint"; then tried=$endpoint; fi; done
    [[ $tried != an-* ]] || stop "the proxy was given no endpoint in ${RANGES// / or } for $HOST (but ${!now[*]}): are the workload's pods ready, and is their network labelled rightly (topology.istio.io/network)?"
    stop "no answer from $tried for $HOST port $PORT in $PATIENCE s (last: ${last:-no connection}): $(why "$tried")"
  fi
  sleep 0.3
done

caller=$(curl --silent "$admin/certs" | grep -o 'spiffe://[^"]*' | head -n 1)
for endpoint in "${!now[@]}"; do
  if [ "${now[$endpoint]}" -gt 0 ]; then printf 'call\t%s\t%s\t%s\t%s\t%s\t%s\n' "$CALLER" "$caller" "$HOST:$PORT" "$endpoint" "$IDENTITY" "${now[$endpoint]}"; fi
done | sort
if [ -n "$ANSWERED" ]; then
  counter=rq_success
  [ -n "$URL_PATH" ] || counter=cx_total
  count=$(curl --silent --max-time 5 "$admin/clusters" | sed -n "s/^inbound|$ANSWERED||::[0-9.]*:$ANSWERED::$counter::\([0-9]*\)\$/\1/p" | head -n 1)
  [ "${count:-0}" -gt 0 ] || stop "no call from a pod has reached port $ANSWERED: check the way from the pods, or from the network's gateway, to this machine"
  printf 'answered\t%s\t%s\n' "$CALLER" "$count"
fi
