# Calls endpoints as somebody outside the mesh, without a certificate, and prints what comes of it: `outside <endpoint> <refused, unreachable or answered>`.
# Variables: ENDPOINTS (`address:port`), SNI (the name by which gateways pass calls on).
for endpoint in $ENDPOINTS; do
  url=http://$endpoint/
  # Gateways pass on TLS alone.
  case $endpoint in *:15443) url=https://$SNI:15443/ ;; esac
  curl --silent --insecure --output /dev/null --connect-timeout 3 --max-time 6 --connect-to "$SNI:15443:$endpoint" "$url"
  case $? in
  0) said=answered ;;
  6 | 7 | 28) said=unreachable ;;
  35 | 52 | 55 | 56) said=refused ;; # cut off: in the handshake, before an answer, while sending, while receiving
  *) said=answered ;;
  esac
  printf 'outside\t%s\t%s\n' "$endpoint" "$said"
done
