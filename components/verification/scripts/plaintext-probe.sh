# Sends a request to endpoints from outside the mesh, without a certificate. Prints for each
# a record of evidence.py: refused, unreachable or answered.
# Variables: ENDPOINTS (`address:port`), SNI (the name by which gateways route requests).

# What an exit code of curl says of the endpoint.
result_of() { # code
  case $1 in
  6 | 7 | 28) echo unreachable ;;
  # Cut off: in the handshake, before an answer, while sending, while receiving.
  35 | 52 | 55 | 56) echo refused ;;
  *) echo answered ;;
  esac
}

main() {
  local endpoint url
  for endpoint in $ENDPOINTS; do
    # Gateways take TLS alone.
    case $endpoint in
    *:15443) url=https://$SNI:15443/ ;;
    *) url=http://$endpoint/ ;;
    esac
    direct_curl --insecure --output /dev/null --connect-timeout 3 --max-time 6 \
      --connect-to "$SNI:15443:$endpoint" "$url"
    printf '{"plaintext": {"endpoint": "%s", "result": "%s"}}\n' "$endpoint" "$(result_of $?)"
  done
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
