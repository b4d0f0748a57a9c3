# Calls Services through this proxy, and prints the result: records of evidence.py as JSON.
# Variables:
# - CALLER: its name. NETWORK: its network. TIMEOUT_S: seconds for all calls.
# - LISTENER: the port of addressing.py's listener, which calls the endpoints that the caller
#   names. It is "" on a machine, whose proxy chooses.
# - HEADERS: of HTTP requests, one a line.
# - INBOUND: lines of port and protocol. Calls must have reached this machine on it.
# - TARGETS: a target a line. Columns are separated by tabs, and an empty one is "-":
#   1. Service (FQDN)
#   2. port
#   3. protocol
#   4. path
#   5. statuses that are right (`200-399,404-404`)
#   6. seconds for one call
#   7. `fail` or `warn`
#   8. the callee's SPIFFE IDs (`id,...`), that of the mesh's trust domain first
#   9. endpoints that must answer (`address:port,...`)
#   10. CIDRs (an endpoint in one of them must answer)
#   11. gateways (`address or name:15443,...`); each must pass calls on
#   12. how many calls each of the gateways gets
#   13. machines (`name=address:port,...`)
ADMIN=http://127.0.0.1:15000
AT_ONCE=50
# Of a machine's calls by name.
MOST_AT_ONCE=16
# How many calls in a row must be answered at most, where one has failed before.
MOST_TO_REPEAT=50
# Seconds for a list of all endpoints of a mesh. Of a part of it, the rest would not be there.
DUMP_S=30
# Seconds for which a connection must stay open, before a byte was sent and afterwards.
SILENT_S=1 AFTERWARDS_S=1
# What is sent on a connection for bytes: Istio's filters for TCP judge the first byte alone, and
# let a server speak before it. One byte completes no message of a protocol that counts bytes, but
# servers may hang up at a wrong one. So an attempt after one that failed tries the next. The last
# two begin requests of HTTP: a proxy that detects protocols waits for more of these.
FIRST_BYTES=('\n' '\x10' '\x04' '\x16' '0' 'P')
# Stands for the Service's name where an endpoint could stand.
NAME=name

# Per endpoint: calls, answers, statuses (`code=count `), the text of the last failure.
declare -A calls answers statuses failures machine_of
# By endpoint that the proxy was given: answers and attempts since `start_counting`, its weight,
# and `given` or `ejected`. What it had counted before that is of unhealthy ones, too.
declare -A now tried weight state before tried_before answered_so_far attempted_so_far
# Endpoints that were tried at all, and those of the last calls that failed.
declare -A chosen failed
attempted_before='' # what `attempts` printed
is_uncalled=''      # whether no call has reached this machine
failure='' caller_identity='' deadline=0 attempt=0 accepted='' FIRST_BYTE=''

# Sets STRING to a text as a string of JSON.
quote() { # text
  STRING=${1//\\/\\\\}
  STRING=${STRING//\"/\\\"}
  STRING="\"${STRING//[[:cntrl:]]/ }\""
}

# Prints a record: fields of the target first, then pairs of name and value.
print_row() { # name value...
  local line="\"port\": $PORT"
  set -- service "$SERVICE" protocol "$PROTOCOL" caller "$CALLER" network "$NETWORK" \
    caller_identity "$caller_identity" "$@"
  while [ $# -gt 0 ]; do
    case $1 in
    calls | answers) line+=", \"$1\": $2" ;;
    status) line+=", \"status\": {$2}" ;;
    *)
      quote "$2"
      line+=", \"$1\": $STRING"
      ;;
    esac
    shift 2
  done
  printf '{"calls": {%s}}\n' "$line"
}

# Prints counts of statuses as members of a JSON object.
members() { # code=count...
  local each list=''
  for each; do
    quote "${each%=*}"
    list+=", $STRING: ${each#*=}"
  done
  echo "${list#, }"
}

is_http() {
  case $PROTOCOL in http | http2 | grpc) ;; *) return 1 ;; esac
}

is_expected() { # status
  local range
  for range in ${EXPECT//,/ }; do
    if (($1 >= ${range%-*} && $1 <= ${range#*-})); then return 0; fi
  done
  return 1
}

in_ranges() { # endpoint
  local cidr shift address
  ipv4_number "${1%:*}"
  # shellcheck disable=SC2153 # lib.sh assigns it
  address=$NUMBER
  for cidr in ${RANGES//,/ }; do
    shift=$((32 - ${cidr#*/}))
    ipv4_number "${cidr%/*}"
    if ((address >> shift == NUMBER >> shift)); then return 0; fi
  done
  return 1
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

# Prints how many connections meet all endpoints behind a balancer: N * (ln N + 4).
connections_for() { # endpoints
  awk -v n="$1" 'BEGIN { if (n < 1) n = 1; k = n * (log(n) + 4); print int(k) + (k > int(k)) }'
}

# Reads what the peer of descriptor 3 sends until it is silent for some time. Prints `bytes` if
# there was anything, and fails if the peer has closed the connection.
listen() { # seconds
  local text code=0 is_first=1 end=$((SECONDS + 3))
  while [ $code = 0 ] && ((SECONDS < end)); do
    text=''
    IFS= read -r -d '' -n 1000 -t "$1" -u 3 text || code=$?
    if [ -n "$is_first" ] && { [ $code = 0 ] || [ -n "$text" ]; }; then
      echo bytes
      is_first=''
    fi
  done
  [ $code = 0 ] || [ $code -gt 128 ]
}

# Watches an open connection. Prints its status and what it shows.
watch_connection() {
  local greeting reply is_closed=''
  greeting=$(listen "$SILENT_S") || is_closed=1
  if [ -n "$is_closed" ]; then
    if [ -n "$greeting" ]; then
      printf 'bytes\tapplication\t\n'
    else
      printf 'closed\tpeer\tit closed the connection\n'
    fi
    return
  fi
  # shellcheck disable=SC2059 # the byte is a format
  printf "$FIRST_BYTE" >&3 2>/dev/null
  reply=$(listen "$AFTERWARDS_S") || is_closed=1
  # What speaks first may still be speaking: only the end shows what became of the byte.
  if [ -n "$is_closed" ] && { [ -z "$reply" ] || [ -n "$greeting" ]; }; then
    printf 'closed\tpeer\tit closed the connection at the first byte\n'
  else
    printf '%s\tapplication\t\n' "${greeting:-${reply:-open}}"
  fi
}

# Reads the head of a response. Prints: status, who has answered, and Envoy's words for a failure.
# Of gRPC the trailers count too. The header `x-envoy-upstream-service-time` is the application's.
# In calls by name the caller's own proxy adds it also to answers of the callee's proxy. The text of
# the answer distinguishes these.
read_response() { # by-name or ""
  local line status='' by='' details='' reason='' grpc='' words='' type=''
  while IFS= read -r -t "$CALL_TIMEOUT" -u 3 line; do
    line=${line%$'\r'}
    case ${line,,} in
    http/1.*) status=${line#* } status=${status%% *} ;;
    x-istio-vm-mesh-details:*) details=${line#*: } ;;
    x-istio-vm-mesh-failure:*) reason=${line#*: } ;;
    x-envoy-upstream-service-time:*) by=application ;;
    content-type:*) type=${line#*: } ;;
    grpc-status:*) grpc=${line#*: } ;;
    grpc-message:*) words=${line#*: } ;;
    '')
      # An interim response (100) has another head behind it.
      if [ "${status:0:1}" = 1 ]; then continue; fi
      # Before trailers come messages of gRPC: an empty one has five bytes, which bash leaves out.
      if [ "$PROTOCOL" != grpc ] || [ -n "$grpc" ]; then break; fi
      ;;
    esac
  done
  if [ -n "$details" ] && [ "$details" != via_upstream ]; then by=caller; fi
  if [ -n "$1" ] && [ "$by" = application ]; then
    if [ "$PROTOCOL" != grpc ] && [[ $status = [45]* ]]; then
      IFS= read -r -n 100 -t 1 -u 3 words
    fi
    if is_of_proxy "$words"; then by=proxy; fi
  fi
  if [ "$PROTOCOL" = grpc ] && [ "$status" = 200 ]; then
    status="grpc ${grpc:-unknown}"
    # Else a page about gRPC could have a line as of trailers.
    if [[ $type != application/grpc* ]]; then status='no grpc'; fi
  fi
  case $reason in '' | -) reason=$details ;; esac
  printf '%s\t%s\t%s\n' "${status:-no answer}" "${by:-proxy}" "$reason"
}

# Whether words are those by which Envoy answers in the application's place.
is_of_proxy() { # words
  case ${1//%3A/:} in
  'RBAC: '* | Jwt* | 'Audiences in Jwt'* | 'upstream '* | 'no healthy upstream'* | overload* | \
    local_rate_limited* | 'fault filter abort'* | 'rate limited'* | 'request timeout'*) ;;
  *) return 1 ;;
  esac
}

# Calls once, and prints: status, who has answered, and a text. Without an endpoint the Service's
# name is called, and the proxy chooses.
converse() { # [endpoint]
  local host=$SERVICE port=$PORT head='' method=GET authority=$SERVICE how=by-name result
  trap '' PIPE
  if [ $# -gt 0 ]; then
    how=''
    host=127.0.0.1 port=$LISTENER
    head="x-istio-vm-mesh-endpoint: $1"$'\r\n'
    head+="x-istio-vm-mesh-target: $SERVICE:$PORT"$'\r\n'
  fi
  if ! { exec 3<>"/dev/tcp/$host/$port"; } 2>/dev/null; then
    printf 'no connection\tcaller\tthe caller can open no connection\n'
  elif is_http; then
    [ "$PORT" = 80 ] || authority=$SERVICE:$PORT
    if [ -n "${HEADERS-}" ]; then head+=${HEADERS//$'\n'/$'\r\n'}$'\r\n'; fi
    if [ "$PROTOCOL" = grpc ]; then
      method=POST
      head+=$'content-type: application/grpc\r\nte: trailers\r\ncontent-length: 5\r\n'
    fi
    printf '%s %s HTTP/1.1\r\nhost: %s\r\n%sconnection: close\r\n\r\n' \
      "$method" "$URL_PATH" "$authority" "$head" >&3
    if [ "$PROTOCOL" = grpc ]; then printf '\0\0\0\0\0' >&3; fi
    read_response "$how"
  elif [ -n "$head" ]; then
    printf 'CONNECT %s:%s HTTP/1.1\r\nhost: %s:%s\r\n%s\r\n' \
      "$SERVICE" "$PORT" "$SERVICE" "$PORT" "$head" >&3
    result=$(read_response "$how")
    if [[ $result == 200$'\t'* ]]; then watch_connection; else echo "$result"; fi
  else
    watch_connection
  fi
}

# Whether a result is proof. A response of a proxy is none, as far as it can be detected. Its
# policies may refuse by 403, or redirect to a login.
is_proof() { # status by endpoint
  case $1 in
  open | bytes) return 0 ;;
  'grpc '*)
    [ "$2" != caller ] || return 1
    # What a proxy answers in the application's place: forbidden, too late, unavailable. A status
    # of HTTP that has none of gRPC, such as a redirect to a login, is 2 or 13.
    case ${1#grpc } in
    2 | 4 | 7 | 8 | 13 | 14 | 16) [ "$2" = application ] ;;
    # No answer. By name, the caller's own proxy leaves out the trailers of one.
    unknown) [ "$3" = $NAME ] ;;
    esac
    ;;
  [1-5][0-9][0-9])
    [[ $PROTOCOL = http* ]] && [ "$2" != caller ] && is_expected "$1" || return 1
    # In calls by name, its own proxy adds the header.
    (($1 < 300)) || [ "$2" = application ]
    ;;
  *) return 1 ;;
  esac
}

# Calls endpoints, many at once, and takes the results down.
call_all() { # endpoint...
  local endpoint status by text results=0
  failed=()
  FIRST_BYTE=${FIRST_BYTES[attempt % ${#FIRST_BYTES[@]}]}
  while IFS=$'\t' read -r endpoint status by text; do
    count "$endpoint" "$status" "$by" "$text"
    results=$((results + 1))
  done < <(start_calls "$@")
  # A process that was killed, or that could not start, has called nothing.
  if ((results < $#)); then
    for endpoint; do
      failed[$endpoint]=1
      failures[$endpoint]=$'no answer\tcaller\ta call ended without a result'
    done
  fi
  [ ${#failed[@]} = 0 ] || attempt=$((attempt + 1))
}

# Starts calls, and prints a line for each: endpoint and result.
start_calls() { # endpoint...
  local endpoint started=0
  for endpoint; do
    start_call "$endpoint" &
    started=$((started + 1))
    if ((started % AT_ONCE == 0)); then wait; fi
  done
  wait
}

start_call() { # endpoint
  local result
  if [ "$1" != $NAME ]; then
    result=$(converse "$1")
  else
    # Where a proxy redirects nothing, a connection may hang for minutes.
    export SERVICE PORT PROTOCOL URL_PATH HEADERS CALL_TIMEOUT FIRST_BYTE SILENT_S AFTERWARDS_S
    export -f converse is_http is_of_proxy read_response watch_connection listen
    result=$(timeout "$((CALL_TIMEOUT + 5))" bash -c converse) ||
      result=$'no answer\tcaller\tno connection by its name'
  fi
  printf '%s\t%s\n' "$1" "$result"
}

count() { # endpoint status by text
  local list=" ${statuses[$1]:-}" number
  number=${list##* "${2// /-}"=}
  if [ "$number" = "$list" ]; then
    statuses[$1]="${list# }${2// /-}=1 "
  else
    number=${number%% *}
    statuses[$1]=${list/" ${2// /-}=$number "/" ${2// /-}=$((number + 1)) "}
    statuses[$1]=${statuses[$1]# }
  fi
  calls[$1]=$((${calls[$1]:-0} + 1))
  if is_proof "$2" "$3" "$1"; then
    answers[$1]=$((${answers[$1]:-0} + 1))
  else
    failed[$1]=1
    failures[$1]="$2"$'\t'"$3"$'\t'"$4"
  fi
}

# Prints what Envoy has of endpoints and clusters.
dump_clusters() {
  direct_curl --max-time "$DUMP_S" "$ADMIN/clusters"
}

# Prints a line an endpoint of the Service: address:port, answers and attempts so far, by Envoy's
# counters, its weight, and its state. Subsets of a DestinationRule are clusters of their own. Of
# connections Envoy counts those that it has established as requests (rq_total). A request of HTTP/2
# may wait for a connection that was begun before: only its failure counts (cx_connect_fail).
# istiod gives proxies unhealthy endpoints, too, and states that: no client is led to them.
given() {
  local counter=rq_total dump
  # A success is a status below 500. Of gRPC some statuses of applications are none.
  case $PROTOCOL in http | http2) [[ $EXPECT =~ 5[0-9][0-9] ]] || counter=rq_success ;; esac
  local cluster="outbound|$PORT|[^|]*|$SERVICE" endpoint='\([0-9.]*:[0-9]*\)'
  dump=$(dump_clusters) || return 1
  # A here-string of this size would be a file in /tmp, which may be full or read-only.
  printf '%s\n' "$dump" | sed -n "s/^$cluster::$endpoint::\([a-z_]*\)::\(.*\)\$/\1 \2 \3/p" |
    awk -v counter=$counter '{ all[$1] += 0 }
      $2 == counter { sum[$1] += $3 }
      $2 == "cx_total" || $2 == "cx_connect_fail" || $2 == "rq_total" { all[$1] += $3 }
      $2 == "weight" && $3 > weight[$1] { weight[$1] = $3 }
      $2 == "health_flags" && /failed_outlier_check/ && !($1 in state) { state[$1] = "ejected" }
      $2 == "health_flags" && /failed_eds_health|eds_status_draining/ { state[$1] = "unhealthy" }
      END {
        for (each in all) {
          if (!(each in state)) state[each] = "given"
          if (!weight[each]) weight[each] = 1
          printf "%s %.0f %.0f %d %s\n", each, sum[each], all[each], weight[each], state[each]
        }
      }'
}

# Lets time pass until the proxy is asked again. Once the time is over, the script fails: what the
# proxy does not state proves nothing.
await_proxy() { # what it did not do
  local problem="Envoy's admin port $1"
  ((SECONDS < deadline)) || fail "${failure:-$problem}"
  sleep 0.3
}

# Reads what the proxy has.
read_given() {
  local endpoint answered attempted each_weight each_state lines
  until lines=$(given); do
    await_proxy "did not list the endpoints of $SERVICE"
  done
  now=() tried=() weight=() state=() answered_so_far=() attempted_so_far=()
  while read -r endpoint answered attempted each_weight each_state; do
    [ -n "$endpoint" ] || continue
    answered_so_far[$endpoint]=$answered attempted_so_far[$endpoint]=$attempted
    [ "$each_state" != unhealthy ] || continue
    weight[$endpoint]=$each_weight state[$endpoint]=$each_state
    # A cluster that was replaced counts from zero.
    if ((attempted < ${tried_before[$endpoint]:-0})); then
      unset "before[$endpoint]" "tried_before[$endpoint]"
    fi
    now[$endpoint]=$((answered - ${before[$endpoint]:-0}))
    tried[$endpoint]=$((attempted - ${tried_before[$endpoint]:-0}))
  done < <(printf '%s\n' "$lines")
}

# Counts from here.
start_counting() {
  local endpoint
  read_given
  for endpoint in "${!answered_so_far[@]}"; do
    before[$endpoint]=${answered_so_far[$endpoint]}
    tried_before[$endpoint]=${attempted_so_far[$endpoint]}
  done
  for endpoint in "${!now[@]}"; do
    now[$endpoint]=0 tried[$endpoint]=0
  done
  until attempted_before=$(attempts); do
    await_proxy "did not list the endpoints of $SERVICE"
  done
}

# Whether an endpoint has answered, or was tried, since `start_counting`.
has_any() { # number...
  local number
  for number; do
    if ((number > 0)); then return 0; fi
  done
  return 1
}

# Whether connections may be open because the caller's own proxy holds them back. One that detects
# protocols waits for more bytes after some of the first ones, so each of these is sent before.
is_held() { # calls, all of which were answered
  ! is_http && ! has_any "${tried[@]}" && (($1 < 4 * ${#FIRST_BYTES[@]}))
}

# Whether connections are open on the caller's side alone: its proxy has begun some to an endpoint,
# and has not established each of them. An established one counts as an attempt twice.
hangs() { # endpoint
  ! is_http && ((${tried[$1]:-0} > 2 * ${now[$1]:-0}))
}

is_hanging() {
  local endpoint
  for endpoint in "${!tried[@]}"; do
    if hangs "$endpoint"; then return 0; fi
  done
  return 1
}

# Whether that lasts. The machine's applications connect by the same proxy, which takes a moment.
keeps_hanging() {
  for _ in 1 2 3 4; do
    is_hanging || return 1
    sleep 0.3
    read_given
  done
  is_hanging
}

is_given() { # endpoint
  local address
  for address in $(resolve "$1"); do
    if [ -n "${now[$address]+x}" ]; then return 0; fi
  done
  return 1
}

was_met() { # endpoint
  local address
  for address in $(resolve "$1"); do
    if ((${now[$address]:-0} > 0)); then return 0; fi
  done
  return 1
}

# Whether the proxy has a certificate of the callee's to expect: else it calls in plaintext. Notes
# every identity that it accepts: a Service's endpoints may have several service accounts.
is_identified() {
  # A new workload's endpoints may come before its identities.
  local config names cluster
  local pattern="outbound[|]${PORT}[|].*[|]${SERVICE//./[.]}"
  config=$(direct_curl --get --data-urlencode "name_regex=$pattern" \
    "$ADMIN/config_dump?resource=dynamic_active_clusters")
  names=$(printf '%s\n' "$config" | grep -o 'spiffe://[^"]*' | sort -u)
  accepted=${names//$'\n'/ }
  case " $accepted " in *" $IDENTITY "*) ;; *) return 1 ;; esac
  # A subset may have a tls.mode of its own, and be called all the same.
  while IFS= read -r cluster; do
    if is_used "$cluster"; then return 1; fi
  done < <(printf '%s\n' "$config" | awk -v identity="\"$IDENTITY\"" '
    match($0, /"name": "outbound[|][^"]*"/) { plain[name = substr($0, RSTART + 9, RLENGTH - 10)] }
    index($0, identity) { delete plain[name] }
    END { for (name in plain) print name }')
}

# Prints how often the proxy has tried endpoints of the Service: `<cluster>::<endpoint> <count>`.
attempts() {
  local dump
  dump=$(dump_clusters) || return 1
  printf '%s\n' "$dump" | sed -n "s/^\(outbound|$PORT|[^|]*|$SERVICE::.*\)::rq_total::/\1 /p"
}

# Whether the proxy has tried endpoints of a cluster since `start_counting`, as far as it states it.
is_used() { # cluster
  local attempted
  attempted=$(attempts) || return 0
  awk -v cluster="$1::" '
    index($1, cluster) != 1 { next }
    part == "before" { before[$1] = $2; next }
    $2 > before[$1] + 0 { is_used = 1 }
    END { exit !is_used }' part=before <(printf '%s\n' "$attempted_before") \
    part=now <(printf '%s\n' "$attempted")
}

# Opens a connection that the proxy does not redirect. A pod without privileges cannot open one:
# there it fails as Envoy's connection has failed.
takes_connections() { # endpoint status text
  if as_proxy true 2>/dev/null; then
    can_connect "${1%:*}" "${1##*:}" 3
    return
  fi
  case $3 in
  *refused* | *imeout* | *nreachable* | *connection_failure*) return 1 ;;
  esac
}

# Prints why an endpoint does not answer, after a tab the object to look at. By a name, the caller's
# own proxy answers in place of an endpoint that takes no connection, or hangs up.
explain() { # endpoint
  local status by text error about
  local alike="Or proxyHeaders switch envoyDebugHeaders off, which show whose answer it is."
  IFS=$'\t' read -r status by text <<<"${failures[$1]:-no connection$'\t'-$'\t'}"
  about=$(object_of "$1")
  if [ -z "$LISTENER" ] && [ "$by" != application ] && [[ $1 = *:* ]]; then
    error=$(takes_connections "$1" "$status" "$text" 2>&1) || {
      explain_silence "$1" "$error $text"
      return
    }
  fi
  case "$by $status $text" in
  *CERTIFICATE_VERIFY_FAILED*has?expired* | *CERTIFICATE_VERIFY_FAILED*not?yet?valid*)
    echo "its certificate is not valid at the caller's time (${text//_/ }): do the clocks of both" \
      "agree, and does its agent reach istiod to renew it?"$'\t'"$about"
    return
    ;;
  *CERTIFICATE_VERIFY_FAILED*)
    echo "its certificate is not one of ${IDENTITIES//,/ or }: does the workload have this" \
      "service account, and the same root, and does the Service select no workload of another" \
      "account behind a gateway?"$'\t'"$about"
    return
    ;;
  *TLS_error*ALERT*)
    echo "it refuses the caller's certificate (${text//_/ }): do both have the same" \
      "root?"$'\t'"$about"
    return
    ;;
  *TLS_error*WRONG_VERSION_NUMBER*)
    echo "it answers in plaintext: does a PeerAuthentication switch mutual TLS off for it, and" \
      "does its sidecar capture the port?"$'\t'"PeerAuthentication of $IDENTITY"
    return
    ;;
  'application '[1-5]* | 'proxy '[1-5]*)
    if [ "$status" = 403 ] && [ "$by" = proxy ]; then
      echo "its proxy forbids the call: an AuthorizationPolicy denies $caller_identity the" \
        "request GET $URL_PATH (verify.path names another)"$'\t'"AuthorizationPolicy of $IDENTITY"
    elif [ "$by" = proxy ] && { ((status >= 500)) || is_expected "$status"; }; then
      echo "its proxy answers in the application's place: does the application answer on this" \
        "port, and does a policy of the proxy redirect callers? $alike"$'\t'"$about"
    else
      echo "$URL_PATH returns $status: set verify.path to a path that returns one of $EXPECT, or" \
        "verify.expectStatus"$'\t'"$about"
    fi
    return
    ;;
  *' no grpc '*)
    echo "it answers, but not by gRPC: does the port's name, or its appProtocol, name another" \
      "protocol than the application's?"$'\t'"$about"
    return
    ;;
  'proxy grpc 7 '*)
    echo "its proxy forbids the call: an AuthorizationPolicy denies" \
      "$caller_identity"$'\t'"AuthorizationPolicy of $IDENTITY"
    return
    ;;
  'proxy grpc '*)
    echo "its proxy answers in the application's place (${status/grpc/status} of gRPC): does the" \
      "application answer on this port? $alike"$'\t'"$about"
    return
    ;;
  'peer closed '*)
    echo "$text: does the application accept connections on the port, does it have the mesh's" \
      "certificates, and does an AuthorizationPolicy deny $caller_identity?"$'\t'"$about"
    return
    ;;
  esac
  error=$(takes_connections "$1" "$status" "$text" 2>&1) && {
    echo "it takes connections: does the application answer there within $CALL_TIMEOUT s" \
      "(verify.timeout), and is its certificate the mesh's?"$'\t'"$about"
    return
  }
  explain_silence "$1" "$error $text"
}

# Prints why an endpoint takes no connection, after a tab the object to look at.
explain_silence() { # endpoint, words of the failure
  local error route address=${1%:*} about
  about=$(object_of "$1")
  error=$(grep -oiE 'refused|unreachable|no route|timeout' <<<"$2" | head -n 1)
  route=$(ip -o route get "$address" 2>/dev/null |
    grep -oE '(via [0-9.]+ )?dev [^ ]+' | head -n 1)
  if [ "${1##*:}" = 15443 ]; then
    echo "the gateway at $address takes no connection on port 15443 (${error:-no answer}):" \
      "is the port open in the firewall between the caller and the gateway," \
      "and does the gateway run?"$'\t'"$about"
  else
    echo "it takes no connection (${error:-no answer}; packets leave ${route:-nowhere}):" \
      "is there a route to $address and back, and does the firewall let the caller" \
      "through?"$'\t'"$about"
  fi
}

object_of() { # endpoint
  if [ -n "${machine_of[$1]:-}" ]; then
    echo "machine ${machine_of[$1]}"
  elif [ "${1##*:}" = 15443 ]; then
    echo "gateway ${1%:*}"
  else
    echo "endpoint $1"
  fi
}

# Takes down the first cause, of what the update may fail by; a warning is shown at once.
note() { # cause or ""
  [ -n "$1" ] || return 0
  if [ "$MODE" = warn ]; then
    echo "$CALLER: $1" >&2
  elif [ -z "$failure" ]; then
    failure=$1
  fi
}

# Prints the row of an endpoint, or of the Service; without a cause it is proved.
print_result() { # endpoint how cause object
  local kind=response code list verdict=proved endpoint=$1 peer=${IDENTITIES//,/ }
  # A proxy that chooses takes any of its identities for that of an endpoint.
  if [ -z "$LISTENER" ]; then peer=$accepted; fi
  if [ "$1" = $NAME ]; then endpoint='' peer=''; fi
  read -ra list <<<"${statuses[$1]:-}"
  is_http || kind=open
  for code in "${list[@]}"; do
    if [[ $code == bytes=* ]]; then kind=bytes; fi
  done
  [ -z "$3" ] || verdict=failed
  print_row endpoint "$endpoint" how "$2" calls "${calls[$1]:-0}" answers "${answers[$1]:-0}" \
    status "$(members "${list[@]}")" peer "$peer" kind "$kind" \
    machine "${machine_of[$1]:-}" verdict "$verdict" cause "$3" object "$4"
}

last_status() { # endpoint
  local status=${failures[$1]:-no connection}
  echo "${status%%$'\t'*}"
}

silence() { # endpoint
  echo "no answer from $1 for $SERVICE port $PORT in $TIMEOUT_S s (last: $(last_status "$1"))"
}

# Prints why the proxy has no endpoint of the Service at all; nothing if it may have some.
hidden_problem() {
  [ ${#now[@]} = 0 ] || return 0
  dump_clusters |
    grep "^outbound|$PORT|[^|]*|$SERVICE::" >/dev/null ||
    echo "the proxy does not know $SERVICE port $PORT: does a Sidecar (egress.hosts) hide it from" \
      "the caller, or exportTo of the Service?"
}

# Whether the name leads to endpoints at all. Prints the cause if not.
name_problem() {
  local problem
  if ! getent hosts "$SERVICE" >/dev/null; then
    echo "$SERVICE does not resolve: is DNS capture on, and does the Service exist?"
  elif [ ${#now[@]} = 0 ]; then
    problem=$(hidden_problem)
    if [ -z "$problem" ]; then
      problem="the proxy has no endpoint for $SERVICE port $PORT: does the Service select the"
      problem+=" workload's labels, and is anything healthy behind it?"
    fi
    echo "$problem"
  else
    return 1
  fi
}

# Prints why an endpoint that must answer was not even given to the proxy; nothing if it was.
gift_problem() { # endpoint
  if [ -z "$(resolve "$1")" ]; then
    echo "the gateway's name ${1%:*} does not resolve here: does DNS have it for this machine too?"
  elif ! is_given "$1"; then
    echo "the proxy was not given the endpoint $1 for $SERVICE (but ${!now[*]}):" \
      "its WorkloadEntry is not healthy, the Service does not select it, or its network or the" \
      "caller's is labelled wrongly (topology.istio.io/network)"
  fi
}

# Calls each endpoint by its address until all have answered, and prints a row for each.
call_endpoints() { # endpoint...
  local endpoint cause object hidden
  # Before that, a machine's proxy may have no port of the Service yet: its counter misses calls.
  # One that never comes must leave the others their attempts.
  wait_until_given $((deadline - TIMEOUT_S / 2)) "$@"
  call_until_answered "$@"
  wait_until_given "$deadline" "$@"
  hidden=$(hidden_problem)
  for endpoint; do
    cause=$hidden object="Service $SERVICE"
    if [ -z "$hidden" ]; then
      cause=$(gift_problem "$endpoint") object="WorkloadEntry of $(object_of "$endpoint")"
    fi
    if [ -z "$cause" ] && [ -n "${failed[$endpoint]:-}" ]; then
      IFS=$'\t' read -r cause object < <(explain "$endpoint")
      cause="$(silence "$endpoint"): $cause"
    fi
    [ -n "$cause" ] || object=''
    print_result "$endpoint" addressed "$cause" "$object"
    note "$cause"
  done
}

# Calls each endpoint until all have answered, or the time is over.
call_until_answered() { # endpoint...
  local endpoint pending=("$@") next
  while :; do
    call_all "${pending[@]}"
    next=()
    for endpoint in "${pending[@]}"; do
      if [ -n "${failed[$endpoint]:-}" ]; then next+=("$endpoint"); fi
    done
    pending=("${next[@]}")
    if ((SECONDS >= deadline)) || [ ${#pending[@]} = 0 ]; then break; fi
    sleep 0.3
  done
}

# Waits until the proxy was given all of some endpoints, or until a time.
wait_until_given() { # time endpoint...
  until read_given && are_given "${@:2}"; do
    if ((SECONDS >= $1)); then break; fi
    sleep 0.3
  done
}

are_given() { # endpoint...
  local endpoint
  for endpoint; do
    is_given "$endpoint" || return 1
  done
}

# Calls through each gateway so often that all endpoints behind them are met.
call_gateways() { # gateway...
  local gateway address list=() every=() once numbers number each cause object hidden
  local -A address_of number_of unanswered=()
  IFS=, read -ra numbers <<<"$CALLS"
  for gateway; do
    number=${numbers[0]} numbers=("${numbers[@]:1}")
    # A name may have other addresses the next time.
    address=$(resolve "$gateway" | head -n 1)
    [ -n "$address" ] || continue
    list+=("$address") address_of[$gateway]=$address number_of[$address]=$number
  done
  # Many calls are of use only once a single one is answered.
  call_until_answered "${list[@]}"
  for address in "${list[@]}"; do
    if [ -n "${failed[$address]:-}" ]; then
      unanswered[$address]=1
    else
      for ((each = 0; each < number_of[$address]; each++)); do every+=("$address"); done
    fi
  done
  once=("${every[@]}")
  while [ ${#every[@]} -gt 0 ]; do
    call_all "${every[@]}"
    if [ ${#failed[@]} = 0 ] || ((SECONDS >= deadline)); then break; fi
    # One of many rounds would miss an endpoint that fails. So each is longer than the last.
    every+=("${once[@]}")
    sleep 0.3
  done
  for address in "${!unanswered[@]}"; do failed[$address]=1; done
  wait_until_given "$deadline" "$@"
  hidden=$(hidden_problem)
  for gateway; do
    address=${address_of[$gateway]:-} object="gateway ${gateway%:*}"
    cause=$(gift_problem "$gateway")
    if [ -n "$hidden" ]; then
      cause=$hidden object="Service $SERVICE"
    elif [ -z "$address" ]; then
      cause=${cause:-"the gateway's name ${gateway%:*} did not resolve here at first"}
    elif [ -z "$cause" ] && [ -n "${failed[$address]:-}" ]; then
      IFS=$'\t' read -r cause object < <(explain "$address")
      cause="$(silence "$address"): $cause"
    fi
    [ -n "$cause" ] || object=''
    print_result "${address:-$gateway}" by-chance "$cause" "$object"
    note "$cause"
  done
}

# Calls the Service by its name, as its clients do. What its routes (VirtualService,
# DestinationRule) make of a call is the user's: it is named, and fails nothing.
call_by_name() {
  local cause object=''
  start_counting
  while :; do
    call_all $NAME
    read_given
    # The caller's own connection stands before the proxy has established one.
    if [ ${#failed[@]} = 0 ] && has_any "${now[@]}"; then break; fi
    if ((SECONDS >= deadline)); then break; fi
    sleep 0.3
  done
  if cause=$(name_problem); then
    object="Service $SERVICE"
    note "$cause"
  elif [ ${#failed[@]} -gt 0 ] || ! has_any "${now[@]}"; then
    object="VirtualService or DestinationRule of $SERVICE"
    cause="calls by the name $SERVICE port $PORT are not answered as those of its endpoints are"
    cause+=" (last: $(last_status $NAME)): what do its routes do with them?"
    echo "$CALLER: $cause" >&2
  fi
  print_result $NAME by-chance "$cause" "$object"
}

# Sends calls by name until the wanted endpoints have been met. The proxy chooses. Its counters tell
# connections and refusals from nothing, so only calls count after the last one that failed. Then
# so many must be answered that an endpoint that always fails is met again.
call_by_chance() {
  local endpoint cause='' object="Service $SERVICE" round first=4 most=$MOST_AT_ONCE
  local number=0 missing='' has_failed='' is_clean='' is_enough=''
  local is_plain=1 # without an identity to expect, the proxy calls in plaintext
  # A gateway passes connections on, not requests: only several at once meet what is behind it.
  [ -z "$GATEWAYS" ] || first=12
  local size=$first
  start_counting
  while :; do
    round=()
    while ((${#round[@]} < size)); do round+=("$NAME"); done
    call_all "${round[@]}"
    number=$((number + size)) is_clean='' is_enough=''
    read_given
    if [ ${#failed[@]} = 0 ] && ! keeps_hanging; then is_clean=1; else has_failed=1; fi
    note_chosen
    missing=$(missing_here)
    # The configuration takes longest to read, so it is read last.
    if [ -n "$is_clean" ] && are_enough "$number"; then
      is_enough=1
      if is_identified; then
        is_plain=''
        break
      fi
    fi
    if ((SECONDS >= deadline)); then
      if is_identified; then is_plain=''; fi
      break
    fi
    if [ -z "$is_clean" ]; then
      # So many at once may be more than the Service takes.
      if ((size > first)); then most=$((size / 2)); fi
      start_counting
      number=0 size=$first
    elif is_held "$number"; then
      attempt=$((attempt + 1))
    elif [ -z "$is_enough" ] && ((2 * size <= most)); then
      size=$((2 * size))
    fi
    sleep 0.3
  done
  for endpoint in "${!now[@]}"; do
    if [ -n "$is_clean" ] && [ -z "$is_plain" ] && ((now[$endpoint] > 0)); then
      calls[$endpoint]=${tried[$endpoint]} answers[$endpoint]=${now[$endpoint]}
      print_result "$endpoint" by-chance '' ''
    fi
  done
  if cause=$(name_problem); then
    note "$cause"
  elif [ -n "$is_clean" ] && [ -z "$is_plain" ] && ! is_held "$number" && is_never_chosen; then
    object="VirtualService or DestinationRule of $SERVICE"
    cause="$number calls by the name $SERVICE port $PORT were answered, but none by"
    cause+=" ${missing/#ranges/an endpoint in ${RANGES//,/ or }}: $(reason_to_pass_over)"
    echo "$CALLER: $cause" >&2
  elif [ -z "$is_plain" ] && is_answered_by_routes; then
    object="VirtualService or DestinationRule of $SERVICE"
    cause="the caller's own proxy answers calls by the name $SERVICE port $PORT"
    cause+=" (last: $(last_status $NAME)): what do its routes do with them?"
    echo "$CALLER: $cause" >&2
  else
    cause=$(chance_problem)
    note "$cause"
  fi
  print_result $NAME by-chance "$cause" "${cause:+$object}"
}

# Takes down which endpoints the last calls have tried.
note_chosen() {
  local endpoint
  for endpoint in "${!tried[@]}"; do
    if ((tried[$endpoint] > 0)); then chosen[$endpoint]=1; fi
  done
}

# Whether the last calls, which were all answered, have met what is wanted, or would never do so.
are_enough() { # number
  local needed
  if is_held "$1"; then return 1; fi
  [ -n "$missing$has_failed" ] || return 0
  needed=$(connections_for "$(shares)")
  if [ -n "$missing" ]; then
    (($1 >= needed)) && is_never_chosen
  else
    (($1 >= (needed < MOST_TO_REPEAT ? needed : MOST_TO_REPEAT)))
  fi
}

# Prints into how many shares the calls are divided, by the smallest weight of a missing endpoint,
# or of any one where none is missing. istiod adds up the weights of endpoints behind a gateway.
shares() {
  local endpoint sum=0 least='' list
  read -ra list < <(missing_ones)
  for endpoint in "${!now[@]}"; do sum=$((sum + ${weight[$endpoint]:-1})); done
  [ ${#list[@]} -gt 0 ] || list=("${!now[@]}")
  for endpoint in "${list[@]}"; do
    if [ -z "$least" ] || ((${weight[$endpoint]:-1} < least)); then
      least=${weight[$endpoint]:-1}
    fi
  done
  echo $(((sum + ${least:-1} - 1) / ${least:-1}))
}

# Whether the last calls of HTTP were answered, but not by endpoints: the caller's own proxy has
# tried none, although it has healthy ones. Then its routes do that (faults, redirects, no route).
# An attempt for earlier calls counts too: the last ones may have waited for its connection. Where
# failures have ejected an endpoint, the proxy has none to try for a while.
is_answered_by_routes() {
  [ ${#failed[@]} -gt 0 ] || return 1
  case ${failures[$NAME]:-} in [1-5][0-9][0-9]$'\t'proxy$'\t'*) ;; *) return 1 ;; esac
  [ ${#chosen[@]} = 0 ] && [[ " ${state[*]} " != *" ejected "* ]] || return 1
  dump_clusters |
    grep "^outbound|$PORT|[^|]*|$SERVICE::[0-9.]*:[0-9]*::health_flags::healthy\$" >/dev/null
}

# Whether the proxy has the missing endpoints, and has not even tried them though it could.
is_never_chosen() {
  local endpoint list
  [ -n "$missing" ] || return 1
  read -ra list < <(missing_ones)
  for endpoint in "${list[@]}"; do
    if [ -n "${chosen[$endpoint]:-}" ] || [ "${state[$endpoint]:-}" = ejected ]; then return 1; fi
  done
  [ ${#list[@]} -gt 0 ]
}

# Prints why the proxy chooses others than the missing endpoints.
reason_to_pass_over() {
  local endpoint priority
  while read -r endpoint priority; do
    if ((priority > 0)) && [[ " $(missing_ones) " == *" $endpoint "* ]]; then
      echo "others come first, because they are nearer (a DestinationRule with outlier detection" \
        "or the Service's trafficDistribution prefers them): state the locality of the machine," \
        "or switch localityLbSetting off in a DestinationRule"
      return
    fi
  done < <(dump_clusters |
    sed -n "s/^outbound|$PORT|[^|]*|$SERVICE::\([0-9.]*:[0-9]*\)::priority::/\1 /p")
  echo "the routes for it choose other endpoints, or their weights leave it one call in $(shares)"
}

# Prints the missing endpoints that the proxy was given, in a line.
missing_ones() {
  local endpoint list=()
  if [ "$missing" != ranges ]; then
    for endpoint in $(resolve "$missing"); do
      if [ -n "${now[$endpoint]+x}" ]; then list+=("$endpoint"); fi
    done
  else
    for endpoint in "${!now[@]}"; do
      if in_ranges "$endpoint"; then list+=("$endpoint"); fi
    done
  fi
  echo "${list[*]}"
}

# Prints the first endpoint, or the ranges, that have not answered; nothing if all have.
missing_here() {
  local endpoint
  for endpoint in ${GATEWAYS//,/ }; do
    if ! was_met "$endpoint"; then
      echo "$endpoint"
      return
    fi
  done
  [ -n "$RANGES" ] || return 0
  for endpoint in "${!now[@]}"; do
    if ((now[$endpoint] > 0)) && in_ranges "$endpoint"; then return; fi
  done
  echo ranges
}

# Prints why calls by chance are no proof; nothing if they are.
chance_problem() {
  local endpoint problem silent='' list
  for endpoint in ${GATEWAYS//,/ }; do
    problem=$(gift_problem "$endpoint")
    if [ -n "$problem" ]; then
      echo "$problem"
      return
    fi
  done
  read -ra list < <(missing_ones)
  if [ "$missing" = ranges ] && [ ${#list[@]} = 0 ]; then
    echo "the proxy was given no endpoint in ${RANGES//,/ or } for $SERVICE (but ${!now[*]}):" \
      "are the workload's pods ready, is their network labelled rightly" \
      "(topology.istio.io/network), and are these all CIDRs of pods (cluster.podCidr," \
      "cluster.additionalPodCidrs)?"
    return
  fi
  # Where a part of the calls fails, one that was not tried since is not to blame.
  for endpoint in "${list[@]}"; do
    if ((tried[$endpoint] > 0)) || [ "${state[$endpoint]:-}" = ejected ]; then silent=$endpoint; fi
  done
  [ "$missing" = ranges ] || silent=${silent:+$missing}
  for endpoint in "${!now[@]}"; do
    if hangs "$endpoint"; then silent=$endpoint; fi
  done
  if [ -n "$is_plain" ]; then
    echo "$SERVICE is called without mutual TLS for $IDENTITY (the proxy accepts:" \
      "${accepted:-nothing}): does the workload have this service account, and does a" \
      "DestinationRule set another tls.mode than ISTIO_MUTUAL?"
  elif [ -n "$is_clean" ] && [ -z "$is_enough$missing" ] && ! is_held "$number"; then
    echo "a part of the calls by the name $SERVICE port $PORT failed (last:" \
      "$(last_status $NAME)): $number after these were answered, which are too few in $TIMEOUT_S s"
  elif [ -z "$is_enough" ]; then
    failures[${silent:-$SERVICE}]=${failures[$NAME]:-}
    problem=$(explain "${silent:-$SERVICE}")
    echo "$(silence "${silent:-$SERVICE}"): ${problem%%$'\t'*}"
  fi
}

# Calls one target, and prints its rows.
verify_target() {
  local each
  calls=() answers=() statuses=() failures=() machine_of=() before=() tried_before=() chosen=()
  for each in ${MACHINES//,/ }; do machine_of[${each#*=}]=${each%%=*}; done
  if [ -z "$LISTENER" ]; then
    call_by_chance
    return
  fi
  # shellcheck disable=SC2086 # a list
  call_endpoints ${ENDPOINTS//,/ }
  # shellcheck disable=SC2086 # a list
  [ -z "$GATEWAYS" ] || call_gateways ${GATEWAYS//,/ }
  call_by_name
}

# Prints how many calls have reached a port of this machine, by its own proxy's counters. istiod has
# Envoy keep those of the proxy's ports. A port that is new may reach callers before the proxy. Then
# Envoy counts a call among those of other ports, and forgets it 5 s after the last one at the
# earliest. Source: istio/istio, pilot/pkg/networking/core/cluster_builder.go (CleanupInterval).
inbound_calls() { # port
  local dump
  dump=$(dump_clusters) || return 1
  # Of connections too, Envoy counts those that it has established as requests.
  printf '%s\n' "$dump" |
    sed -n -e "s/^inbound|$1||::[0-9.]*:[0-9]*::rq_total::\([0-9]*\)\$/\1/p" \
      -e "s/^InboundPassthroughCluster::[0-9.]*:$1::rq_total::\([0-9]*\)\$/\1/p" |
    awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# Prints for how long the proxy has run, which is for how long it has counted.
uptime() {
  direct_curl "$ADMIN/server_info" | sed -n 's/.*"uptime_current_epoch": *"\([0-9]*s\)".*/\1/p'
}

# Proves that calls have reached this machine.
check_inbound() { # port
  local number cause=''
  until number=$(inbound_calls "$1"); do
    await_proxy "did not list what has called port $1"
  done
  if [ "$number" = 0 ]; then
    is_uncalled=1
    cause="no call from a pod has reached port $1 in the $(uptime) since the proxy started: check"
    cause+=" the route from the pods, or from the network's gateway, to this machine, and that the"
    cause+=" application listens there; behind a gateway a DestinationRule (localities, hashes) may"
    cause+=" prefer other endpoints; where the proxy has started after the calls, verify again"
    note "$cause"
  fi
  print_row how by-chance answers "$number" kind counter machine "${CALLER#machine }" \
    verdict "$([ -n "$cause" ] && echo failed || echo proved)" cause "$cause" \
    object "${cause:+$CALLER}"
}

# Prints the row of a target that a machine does not call. Its proxy may choose the machine itself,
# and the next proof would take this for a call of a pod.
leave_out_target() {
  print_result $NAME by-chance \
    "$SERVICE port $PORT is not called by a machine that pods have not called" "$CALLER"
}

wait_for_proxy() {
  until direct_curl --max-time 5 --output /dev/null "$ADMIN/server_info"; do
    ((SECONDS < deadline)) ||
      fail "Envoy does not answer on its admin port: the proxy is not running"
    sleep 0.3
  done
  until [ -z "$LISTENER" ] || { exec 4<>"/dev/tcp/127.0.0.1/$LISTENER"; } 2>/dev/null; do
    ((SECONDS < deadline)) ||
      fail "the proxy has no listener on port $LISTENER: does the mesh refuse a bootstrap of the" \
        "pod's own (sidecar.istio.io/userVolume, ISTIO_BOOTSTRAP_OVERRIDE)?"
    sleep 0.3
  done
  exec 4>&-
}

# shellcheck disable=SC2034 # lib.sh reads SUBJECT and FAILURE_STATUS
main() {
  SUBJECT=$CALLER deadline=$((SECONDS + TIMEOUT_S))
  wait_for_proxy
  caller_identity=$(direct_curl "$ADMIN/certs" | grep -o 'spiffe://[^"]*' | head -n 1)
  # Rows of ports are of the target's Service and mode. They come before the machine's own calls.
  IFS=$'\t' read -r SERVICE _ _ _ _ _ MODE _ <<<"$TARGETS"
  while read -r PORT PROTOCOL <&5; do
    check_inbound "$PORT"
  done 5< <(printf %s "${INBOUND:+$INBOUND$'\n'}")
  while IFS=$'\t' read -r SERVICE PORT PROTOCOL URL_PATH EXPECT CALL_TIMEOUT MODE IDENTITIES \
    ENDPOINTS RANGES GATEWAYS CALLS MACHINES <&5; do
    # Any method will do for gRPC: the application answers that it has none of this name.
    if [ "$URL_PATH" = - ]; then URL_PATH=/grpc.health.v1.Health/Check; fi
    IDENTITY=${IDENTITIES%%,*}
    ENDPOINTS=${ENDPOINTS#-} RANGES=${RANGES#-} GATEWAYS=${GATEWAYS#-} MACHINES=${MACHINES#-}
    if [ -n "$is_uncalled" ]; then leave_out_target; else verify_target; fi
  done 5< <(printf %s "${TARGETS:+$TARGETS$'\n'}")
  if [ -n "$failure" ]; then fail "$failure"; fi
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
