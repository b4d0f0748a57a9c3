# The start of a machine of an instance group. It runs the stack's startup script, and sets what the
# join that follows this text needs: MACHINE, ADDRESS, LOCALITY and TOKEN. The machine mints the
# token with its own Google identity. Nothing here is secret, and no token is on a command line.
# A join that fails is repeated. IAM, the gateway or a mirror may not be there yet, and Google's
# unit runs this text once a boot. The boot waits for Google's unit, and the unit that drains the
# machine waits for the boot. So attempts are in a separate unit.
# Variables: API_SERVER (URL), NAMESPACE, SERVICE_ACCOUNT, SETUP_BASE64 ("" for none), ROTATION;
# METADATA (URL) of tests. PART is set where this text runs itself.
: "${METADATA:=http://metadata.google.internal/computeMetadata/v1}"
BOOT_UNIT=istio-vm-mesh-boot

metadata() { # path
  as_proxy curl --disable --noproxy '*' --silent --fail --retry 10 --retry-connrefused \
    --max-time 10 --header 'Metadata-Flavor: Google' "$METADATA/instance/$1"
}

# Starts the attempts, in place of those of an earlier run. Google's unit removes its file when it
# ends. As in Google's unit, what the setup leaves running stays, and the log is on the serial
# console too.
start_attempts() { # file
  local copy=${RUN_DIRECTORY:-/run}/$BOOT_UNIT.sh
  systemctl stop "$BOOT_UNIT" 2>/dev/null || true
  systemctl reset-failed "$BOOT_UNIT" 2>/dev/null || true
  cp "$1" "$copy"
  systemd-run --quiet --unit "$BOOT_UNIT" --description "Join the mesh at the boot" \
    --property KillMode=process \
    --property StandardOutput=journal+console --property StandardError=journal+console \
    --setenv PART=attempts /bin/bash "$copy"
}

# Runs the text of a file until it succeeds. Its pauses become longer.
try_until_joined() { # file
  local pause=10
  until PART=attempt bash "$1"; do
    echo "the machine has not joined: it tries again in $pause s" >&2
    sleep $pause
    pause=$((pause < 40 ? pause + 10 : 40))
  done
}

run_setup() {
  local setup status
  [ -n "$SETUP_BASE64" ] || return 0
  setup=$(mktemp -p "${TMPDIR:-/var/lib}") # hardened images run nothing that is in /tmp
  printf %s "$SETUP_BASE64" | base64 -d >"$setup"
  chmod 0700 "$setup"
  for _ in 1 2 3; do
    status=0
    "$setup" </dev/null || status=$?
    [ $status != 0 ] || break
    sleep 10
  done
  [ $status = 0 ] ||
    echo "the stack's startup script failed with status $status; the machine joins," \
      "and its probe decides whether it gets requests" >&2
  rm -f "$setup"
}

# Prints a token of the workload's service account, good for an hour.
mint_token() {
  local access answer request status token
  access=$(metadata service-accounts/default/token | json_field access_token)
  [ -n "$access" ] ||
    fail "the metadata server gives no access token: does the machine have its service account?"
  request='{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest"'
  request+=',"spec":{"audiences":["istio-ca"],"expirationSeconds":3600}}'
  answer=$(printf 'header = "Authorization: Bearer %s"\n' "$access" |
    as_proxy curl --disable --noproxy '*' --config - --silent --show-error \
      --write-out '\n%{http_code}' \
      --max-time 20 --retry 5 --retry-connrefused --header 'Content-Type: application/json' \
      --data "$request" \
      "$API_SERVER/api/v1/namespaces/$NAMESPACE/serviceaccounts/$SERVICE_ACCOUNT/token" 2>&1) ||
    true # the status says it
  status=${answer##*$'\n'}
  answer=${answer%$'\n'*}
  [[ $status == 2* ]] ||
    fail "the API server gives no token for the service account $NAMESPACE/$SERVICE_ACCOUNT" \
      "(HTTP status $status): $(printf %s "$answer" | tr -d '\n' | cut -c 1-300)"
  token=$(printf %s "$answer" | json_field token)
  [ -n "$token" ] || fail "the API server's answer has no token"
  printf %s "$token"
}

prepare() {
  local zone
  run_setup
  MACHINE=$(metadata name)
  ADDRESS=$(metadata network-interfaces/0/ip)
  zone=$(metadata zone)
  if [ -z "$MACHINE" ] || [ -z "$ADDRESS" ] || [ -z "$zone" ]; then
    echo "the metadata server does not give this machine's name, address and zone" >&2
    exit 1
  fi
  zone=${zone##*/}
  # shellcheck disable=SC2034 # the join reads it
  LOCALITY=${zone%-*}/$zone
  # shellcheck disable=SC2034 # the join reads it
  TOKEN=$(mint_token) || exit
}

if ! (return 0 2>/dev/null); then
  case ${PART:-} in
  attempt) prepare </dev/null ;;
  attempts)
    try_until_joined "$0"
    exit
    ;;
  *)
    start_attempts "$0"
    exit
    ;;
  esac
fi
