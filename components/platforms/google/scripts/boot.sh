# The start of a machine that joins by itself: runs the stack's setup, and mints the token for the join that follows this text with the
# machine's own Google identity. Nothing here is secret, and no token is on a command line. Variables: API_SERVER, NAMESPACE, SERVICE_ACCOUNT,
# SETUP_BASE64 ("" for none), TOKEN_FILE, ROTATION; METADATA in tests.
METADATA=${METADATA:-http://metadata.google.internal/computeMetadata/v1}

metadata() { # path
  uncaptured curl --silent --fail --retry 10 --retry-connrefused --max-time 10 --header 'Metadata-Flavor: Google' "$METADATA/instance/$1"
}

# As istio-proxy where it exists: its connections are the ones that the proxy does not capture.
uncaptured() {
  if id istio-proxy >/dev/null 2>&1; then set -- runuser -u istio-proxy -- "$@"; fi
  "$@"
}

field() { # name, with JSON on standard input
  tr -d '\n' | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"
}

# What only the machine knows of itself, put into a file's text.
filled() { # base64
  printf %s "$1" | base64 -d | sed "s/@MACHINE@/$MACHINE/g; s/@ADDRESS@/$ADDRESS/g" | base64 -w0
}

mint() {
  local access answer request
  access=$(metadata service-accounts/default/token | field access_token)
  [ -n "$access" ] || fail "the metadata server gives no access token: does the machine have its service account?"
  request='{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"audiences":["istio-ca"],"expirationSeconds":3600}}'
  answer=$(printf 'header = "Authorization: Bearer %s"\n' "$access" | uncaptured curl --config - --silent --show-error --fail-with-body \
    --retry 5 --retry-connrefused --max-time 20 --header 'Content-Type: application/json' --data "$request" \
    "$API_SERVER/api/v1/namespaces/$NAMESPACE/serviceaccounts/$SERVICE_ACCOUNT/token" 2>&1) ||
    fail "the API server gives no token for the service account $NAMESPACE/$SERVICE_ACCOUNT: $(printf %s "$answer" | tr -d '\n' | cut -c 1-300)"
  printf %s "$answer" | field token
}

token() {
  local minted
  minted=$(mint)
  [ -n "$minted" ] || fail "the API server's answer has no token"
  put "$TOKEN_FILE" 0600 istio-proxy:istio-proxy "$(printf %s "$minted" | base64 -w0)"
}

if [ -n "$SETUP_BASE64" ]; then
  setup=$(mktemp -p "${TMPDIR:-/var/lib}") # hardened images run nothing that is in /tmp
  printf %s "$SETUP_BASE64" | base64 -d >"$setup"
  chmod 0700 "$setup"
  "$setup" </dev/null || echo "the stack's setup script failed with status $?; the machine joins, and its probe decides whether it gets calls" >&2
  rm -f "$setup"
fi
MACHINE=$(metadata name)
ADDRESS=$(metadata network-interfaces/0/ip)
if [ -z "$MACHINE" ] || [ -z "$ADDRESS" ]; then
  echo "the metadata server does not say who this machine is" >&2
  exit 1
fi
