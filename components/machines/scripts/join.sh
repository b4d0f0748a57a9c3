# Joins this machine to the mesh, or brings it up to date. It compares, and only if something
# differs it stops the agent, writes the files, and starts it again. A second run changes nothing.
# The last line of the output is the digest: an output that ends otherwise is a join that failed.
# Variables, on standard input with all that is secret: MACHINE, GATEWAY (address or DNS name),
# TOKEN, FILES (a tar in base64), PACKAGE_URL, PACKAGE_SHA256 (or ""), GRACE_S, DIGEST,
# REGISTRATION; where startup.sh stands before this text, API_SERVER and ADDRESS too.
ROOT=''
RUN=/run
STATE=/var/lib/istio-vm-mesh
TOKEN_FILE=/var/lib/istio/envoy/istio-token
CERTS=/etc/certs
READY_TIMEOUT_S=60
SETUP_TIMEOUT_S=300
LOCK_TIMEOUT_S=120

log_of_agent() { # since
  journalctl --unit istio --since "$1" --no-pager --output cat 2>/dev/null
}

# The stack's startup script may still run on a new machine. An instance group's join is part of it.
wait_for_setup() {
  [ -z "${API_SERVER:-}" ] || return 0
  local unit=google-startup-scripts
  for _ in $(seq $((SETUP_TIMEOUT_S / 3))); do
    [ "$(systemctl show --property=ActiveState --value $unit 2>/dev/null)" = activating ] ||
      return 0
    sleep 3
  done
}

preflight() {
  local command architecture free
  [ "$(id -u)" = 0 ] || fail "the join needs root: let the SSH user run sudo without a password"
  for command in systemctl iptables ss curl pgrep sha256sum tar; do
    command -v "$command" >/dev/null ||
      fail "$command is missing: install it on the machine, or in its image"
  done
  if command -v dpkg >/dev/null; then
    family=deb
  elif command -v rpm >/dev/null; then
    family=rpm
  else
    fail "there is neither dpkg nor rpm:" \
      "Istio's sidecar comes as a package for Debian's and Red Hat's families"
  fi
  case $(uname -m) in
  x86_64) architecture= ;;
  aarch64) architecture=-arm64 ;;
  *) fail "Istio's sidecar is built for x86_64 and aarch64; this machine is $(uname -m)" ;;
  esac
  PACKAGE_URL=${PACKAGE_URL//"{package}"/$family/istio-sidecar$architecture.$family}
  if pgrep -x pilot-agent >/dev/null &&
    ! grep -qs istio-vm-mesh /etc/systemd/system/istio.service; then
    fail "another Istio agent already runs on this machine" \
      "(process $(pgrep -x pilot-agent | head -n 1)): stop it and remove what started it"
  fi
  free=$(df --output=avail -k /usr/local | tail -n 1)
  [ "$free" -gt 307200 ] ||
    fail "only $((free / 1024)) MiB are free under /usr/local, the sidecar needs 300: make room"
}

check_gateway() {
  can_connect "$GATEWAY" 15012 5 2>/dev/null ||
    fail "cannot reach the east-west gateway at $GATEWAY port 15012: check the gateway's address" \
      "and the firewall between this machine and the gateway"
}

# Downloads the package and checks its digest.
fetch_package() { # path
  local sha256=$PACKAGE_SHA256 actual
  curl --fail --silent --show-error --location --retry 3 --max-time 300 \
    --output "$1" "$PACKAGE_URL" 2>"$STATE/curl.log" ||
    fail "cannot fetch Istio's package from $PACKAGE_URL ($(tail -n 1 "$STATE/curl.log")):" \
      "check mesh.package.url and the route from the machine to it"
  if [ -z "$sha256" ]; then
    sha256=$(curl --fail --silent --location --retry 3 --max-time 60 "$PACKAGE_URL.sha256" |
      head -c 64 | tr -d '\0') ||
      fail "cannot fetch $PACKAGE_URL.sha256: set mesh.package.sha256"
    [[ $sha256 =~ ^[0-9a-f]{64}$ ]] ||
      fail "what is at $PACKAGE_URL.sha256 is no SHA-256: set mesh.package.sha256"
  fi
  actual=$(sha256sum "$1" | cut -d ' ' -f 1)
  [ "$actual" = "$sha256" ] ||
    fail "the package from $PACKAGE_URL has SHA-256 $actual instead of $sha256:" \
      "nothing was installed"
}

# The stamp says which package is installed from where; an unchanged one needs no network.
install_package() {
  local stamp="$PACKAGE_URL ${PACKAGE_SHA256:--}"
  [ "$(cat "$STATE/package" 2>/dev/null)" = "$stamp" ] && [ -x /usr/local/bin/pilot-agent ] &&
    return
  changed=1
  directory=$(mktemp -d /var/tmp/istio-sidecar.XXXXXX)
  trap 'rm -rf "$directory"' EXIT
  fetch_package "$directory/istio-sidecar.$family"
  # Not earlier: a package that cannot be fetched must not cost the machine its place in the mesh.
  stop_agent
  "install_$family" "$directory/istio-sidecar.$family" >"$STATE/package.log" 2>&1 ||
    fail "installing Istio's package failed:" \
      "$(grep -m 1 -E 'depends|error|needed' "$STATE/package.log")"
  rm -rf "$directory"
  echo "$stamp" >"$STATE/package"
}

# Both take the package's configuration files even where a user edited them: an old bootstrap
# template breaks a new agent.
install_deb() { # path
  local output
  # Other programs may hold dpkg's lock, above all on a machine that has just started.
  for _ in $(seq $((LOCK_TIMEOUT_S / 3))); do
    if output=$(DEBIAN_FRONTEND=noninteractive dpkg --install --force-confnew "$1" 2>&1); then
      return 0
    fi
    printf '%s\n' "$output"
    [[ $output == *" lock"* ]] || return 1
    sleep 3
  done
  return 1
}

install_rpm() { # path
  local file
  rpm --upgrade --replacepkgs --oldpackage "$1" || return
  for file in /var/lib/istio/envoy/*.rpmnew; do
    if [ -e "$file" ]; then mv -f "$file" "${file%.rpmnew}"; fi
  done
}

stop_agent() {
  if systemctl is-active --quiet istio; then systemctl stop istio; fi
}

files_tar() {
  printf %s "$FILES" | base64 -d
}

# Fills in what only a machine of an instance group knows of itself.
render() { # path
  [ -z "${ADDRESS:-}" ] || sed -i "s/@MACHINE@/$MACHINE/g; s/@ADDRESS@/$ADDRESS/g" "$1"
}

# Each file is complete before it gets its name, in the same directory: readers see it whole, and
# SELinux labels are those of the directory.
write_files() {
  local path
  # A gateway's agent redirects nothing, also where a sidecar was before.
  rm -f "$ROOT/etc/systemd/system/istio.service.d/sidecar.conf"
  files_tar | tar --extract --touch --directory "$ROOT/" --transform 's/$/.istio-vm-mesh/'
  files_tar | tar --list | while read -r path; do
    render "$ROOT/$path.istio-vm-mesh"
    mv -f "$ROOT/$path.istio-vm-mesh" "$ROOT/$path"
  done
  chown istio-proxy:istio-proxy "$ROOT/etc/certs" "$ROOT"/var/lib/istio/{envoy,config,proxy}
}

# The token was issued a moment ago, or at most an hour if the machine has a certificate. istiod's
# certificates count from two minutes before they are made, so a clock that is further behind finds
# them not valid yet.
check_clock() {
  local issued expires now
  issued=$(token_claim "$TOKEN_FILE" iat)
  expires=$(token_claim "$TOKEN_FILE" exp)
  now=$(date +%s)
  [ -n "$issued" ] && [ -n "$expires" ] || return 0
  if [ "$now" -lt $((issued - 120)) ]; then
    fail "the clock is at least $(((issued - now) / 60)) minutes behind the cluster's:" \
      "it is $(date -u) here: set it, and keep it right (systemd-timesyncd or chrony)"
  elif [ "$now" -ge "$expires" ] && [ ! -e "$CERTS/cert-chain.pem" ]; then
    fail "the clock is at least $(((now - expires) / 60)) minutes ahead of the cluster's," \
      "or this update began more than an hour ago:" \
      "it is $(date -u) here: set the clock, or run the update again"
  fi
}

fail_for_token() {
  local expires audience
  expires=$(token_claim "$TOKEN_FILE" exp)
  audience=$(token_claim "$TOKEN_FILE" aud)
  if [ -z "$expires" ]; then
    fail "the token on the machine is no token: run the update again for a new one"
  elif [ "$audience" != istio-ca ]; then
    fail "istiod refused the machine's token: it is for the audience $audience instead of" \
      "istio-ca: raise machines.$MACHINE.rotation for a new one, and run the update again"
  elif [ "$expires" -lt "$(date +%s)" ]; then
    fail "istiod refused the machine's token: it expired on $(date -u -d "@$expires"), and it is" \
      "$(date -u) here: run the update again for a new one, or set the clock"
  fi
  fail "istiod refused the machine's token: its service account was recreated, it is of another" \
    "cluster, or mesh.clusterId is not what istiod runs with: run the update again for a new one" \
    "(machines.$MACHINE.rotation forces it)"
}

# Prints the last line of a log that a pattern matches, with the replacement in place of it.
last_match() { # log pattern/replacement
  printf '%s\n' "$1" | sed -n "s/$2/p" | tail -n 1
}

# Fails with the cause where the agent's log names one.
diagnose() { # since
  local log accounts
  log=$(log_of_agent "$1" || true)
  case $log in
  *"no identities (["*)
    accounts='.*no identities (\[\([^]]*\).*matched \([^ {]*\).*/'
    accounts+='\1; the WorkloadGroup is for the service account \2'
    fail "istiod refused the machine's identity $(last_match "$log" "$accounts"):" \
      "do the token and the group name the same one?"
    ;;
  *"service account mismatch: "*)
    accounts='.*service account mismatch: "\([^"]*\)" vs "\([^"]*\)".*/'
    accounts+='its service account is \1, and its WorkloadGroup is for \2'
    fail "istiod refuses to register the machine: $(last_match "$log" "$accounts"):" \
      "run pulumi refresh and the update again, which undo manual changes"
    ;;
  *"cannot find WorkloadGroup"*)
    fail "istiod cannot find the machine's WorkloadGroup: is it in the cluster of this mesh?"
    ;;
  *"client claims to be in cluster"*)
    fail "istiod refuses the cluster ID: mesh.clusterId must be the one that istiod runs with"
    ;;
  *"x509: certificate has expired or is not yet valid"*)
    fail "istiod's certificate is not valid at this machine's time, $(date -u): set the clock"
    ;;
  *"certificate signed by unknown authority"*)
    fail "istiod's certificate was not signed by this mesh's root:" \
      "is $GATEWAY the gateway of this mesh?"
    ;;
  *"x509: certificate is valid for"*)
    fail "what answers at $GATEWAY port 15012 is not istiod: is it the gateway of this mesh?"
    ;;
  *Unauthenticated* | *"authentication failure"*) fail_for_token ;;
  esac
}

# Ready, and DNS queries go to the agent (redirect.sh).
is_ready() {
  curl --silent --fail --max-time 2 --output /dev/null http://127.0.0.1:15021/healthz/ready &&
    [ ! -e "$RUN/istio-vm-mesh-dns-bypassed" ]
}

# Most causes are in the log within seconds; a second look tells them from those that pass.
wait_ready() { # since
  local round errors
  for round in $(seq $((READY_TIMEOUT_S * 2))); do
    if is_ready; then return; fi
    [ $((round % 30)) -ne 0 ] || diagnose "$1"
    sleep 0.5
  done
  errors=$(log_of_agent "$1" | grep -iE 'error|fatal|fail|panic' | tail -n 3 | cut -c 1-300 || true)
  fail "the agent is not ready after $READY_TIMEOUT_S s; its log:" \
    "${errors:-$(log_of_agent "$1" | tail -n 3)}"
}

start_agent() {
  local since
  since=$(date '+%Y-%m-%d %H:%M:%S')
  systemctl enable --quiet istio # reads the unit again, too
  systemctl restart istio ||
    fail "the unit istio does not start: $(log_of_agent "$since" | tail -n 3)"
  wait_ready "$since"
}

# istiod reads labels, ports, probe and network once, when it makes an entry: the old entry must be
# deleted before. istiod deletes it GRACE_S seconds after the agent's connection ended.
wait_for_deregistration() { # when the connection ended
  local seconds
  [ -e "$STATE/registration" ] || return 0
  [ "$(cat "$STATE/registration")" != "$REGISTRATION" ] || return 0
  seconds=$(($1 + GRACE_S + 3 - $(date +%s)))
  [ $seconds -le 0 ] || sleep $seconds
}

# The agent may have waited for this token. It retries with back-off, and its earlier errors about
# the old token no longer apply.
ensure_ready() {
  for _ in $(seq 10); do
    if is_ready; then return; fi
    sleep 0.5
  done
  start_agent
}

main() {
  local changed='' identity new_identity='' stopped
  set -eu -o pipefail
  umask 022
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
  wait_for_setup
  preflight
  mkdir -p "$STATE"
  check_gateway
  [ "$(cat "$STATE/digest" 2>/dev/null)" = "$DIGEST" ] || changed=1
  install_package
  printf %s "$TOKEN" | write_file "$TOKEN_FILE" 0600 istio-proxy:istio-proxy
  check_clock
  identity=$(token_claim "$TOKEN_FILE" sub)
  [ "$(cat "$STATE/identity" 2>/dev/null)" = "$identity" ] || changed=1 new_identity=1
  stopped=$(date +%s)
  if [ -n "$changed" ]; then
    rm -f "$STATE/digest"
    stop_agent
    # The agent renews the certificate that it has, whatever account the token is for.
    [ -z "$new_identity" ] || rm -f "$CERTS/key.pem" "$CERTS/cert-chain.pem"
    # Where withdraw.sh ended the connection, it did so before the agent stopped.
    stopped=$(cat "$RUN/istio-vm-mesh-withdrawn" 2>/dev/null || date +%s)
    write_files
  fi
  if [ -z "$changed" ] && systemctl is-active --quiet istio; then
    ensure_ready
  else
    wait_for_deregistration "$stopped"
    start_agent
    echo "$identity" >"$STATE/identity"
    echo "$REGISTRATION" >"$STATE/registration"
    echo "$DIGEST" >"$STATE/digest"
  fi
  echo "$DIGEST"
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
