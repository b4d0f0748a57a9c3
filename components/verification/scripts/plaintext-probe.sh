# Sends a request to endpoints from outside the mesh, without a certificate. Prints for each
# a record of evidence.py: refused, unreachable or answered.
# Variables: ENDPOINTS (`address:port`), SNI (the name by which gateways route requests), SCHEME.
# It is https for applications that end TLS: they hang up at a request of HTTP themselves.
# The memory of the pod is for so many.
AT_ONCE=20

# What an exit code of curl means for the endpoint. One that is silent, and leaves the connection
# open, has taken it: servers of some protocols wait for more bytes than a request has. One that has
# returned a status has answered, also where it resets the connection afterwards.
result_of() { # code, whether the connection was open, status
  case ${3:+answered}$1 in
  6 | 7) echo unreachable ;;
  28) if [ -n "$2" ]; then echo answered; else echo unreachable; fi ;;
  # Cut off: in the handshake, before an answer, while sending, while receiving.
  35 | 52 | 55 | 56) echo refused ;;
  *) echo answered ;;
  esac
}

call() { # endpoint
  local url time=time_connect shown open='' status='' code=0
  # Gateways take TLS alone: behind one, a connection is open after the handshake.
  case $1 in
  *:15443) url=https://$SNI:15443/ time=time_appconnect ;;
  *) url=$SCHEME://$1/ ;;
  esac
  shown=$(direct_curl --insecure --output /dev/null --connect-timeout 3 --max-time 6 \
    --write-out "%{$time} %{http_code}" --connect-to "$SNI:15443:$1" "$url") || code=$?
  read -r open status <<<"$shown"
  printf '{"plaintext": {"endpoint": "%s", "result": "%s"}}\n' "$1" \
    "$(result_of "$code" "${open//[0.,]/}" "${status//0/}")"
}

main() {
  local endpoint started=0
  for endpoint in $ENDPOINTS; do
    call "$endpoint" &
    started=$((started + 1))
    if ((started % AT_ONCE == 0)); then wait; fi
  done
  wait
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
