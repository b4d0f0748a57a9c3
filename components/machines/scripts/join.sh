# Joins this machine to the mesh, or brings it up to date: compares, and only if something differs stops, writes, and starts.
# A second run changes nothing. Variables (MACHINE, GATEWAY, TOKEN (its path), PACKAGE_URL, PACKAGE_SHA256, GRACE, DIGEST, REGISTRATION) and the functions
# `files` and `token` come before this text, on standard input, with all that is secret.
state=/var/lib/istio-vm-mesh

fail() {
  echo "machine $MACHINE: $*" >&2
  exit 1
}

log_of_agent() {
  journalctl --unit istio --since "${1:--2min}" --no-pager --output cat 2>/dev/null
}

# A machine that was made a moment ago may still be at the stack's setup. One that joins by itself does so as part of it.
wait_for_setup() {
  [ -z "${API_SERVER:-}" ] || return 0
  for _ in $(seq 100); do
    [ "$(systemctl show --property=ActiveState --value google-startup-scripts 2>/dev/null)" = activating ] || return 0
    sleep 3
  done
}

preflight() {
  [ "$(id -u)" = 0 ] || fail "the join needs root: let the SSH user run sudo without a password"
  for command in systemctl iptables curl pgrep sha256sum; do
    command -v "$command" >/dev/null || fail "$command is missing: install it on the machine, or in its image"
  done
  if command -v dpkg >/dev/null; then
    family=deb
  elif command -v rpm >/dev/null; then
    family=rpm
  else
    fail "there is neither dpkg nor rpm: Istio's sidecar comes as a package for Debian's and Red Hat's families"
  fi
  case $(uname -m) in
  x86_64) architecture= ;;
  aarch64) architecture=-arm64 ;;
  *) fail "Istio's sidecar is built for x86_64 and aarch64; this machine is $(uname -m)" ;;
  esac
  PACKAGE_URL=${PACKAGE_URL//"{package}"/$family/istio-sidecar$architecture.$family}
  if pgrep -x pilot-agent >/dev/null && ! grep -qs istio-vm-mesh /etc/systemd/system/istio.service; then
    fail "another Istio agent already runs on this machine (process $(pgrep -x pilot-agent | head -n 1)): stop it and remove what started it"
  fi
  free=$(df --output=avail -k /usr/local | tail -n 1)
  [ "$free" -gt 307200 ] || fail "only $((free / 1024)) MiB are free under /usr/local, the sidecar needs 300: make room"
}

# As istio-proxy where it exists: its connections are the ones that the proxy does not capture.
connect() {
  if id istio-proxy >/dev/null 2>&1; then set -- runuser -u istio-proxy -- "$@"; fi
  timeout 5 "$@" 2>/dev/null
}

check_gateway() {
  connect bash -c "exec 3<>/dev/tcp/$GATEWAY/15012" && return
  fail "cannot reach the east-west gateway at $GATEWAY port 15012: check the gateway's address and the firewall between this machine and the gateway"
}

# The stamp says which package is installed from where; an unchanged one needs no network.
install_package() {
  wanted="$PACKAGE_URL ${PACKAGE_SHA256:--}"
  [ "$(cat $state/package 2>/dev/null)" = "$wanted" ] && [ -x /usr/local/bin/pilot-agent ] && return
  changed=1
  file=$(mktemp /var/tmp/istio-sidecar.XXXXXX)
  trap 'rm -f "$file"' EXIT
  curl --fail --silent --show-error --location --retry 3 --max-time 300 --output "$file" "$PACKAGE_URL" 2>$state/curl.log ||
    fail "cannot fetch Istio's package from $PACKAGE_URL ($(tail -n 1 $state/curl.log)): check mesh.package.url and the way from the machine to it"
  sha256=$PACKAGE_SHA256
  if [ -z "$sha256" ]; then
    sha256=$(curl --fail --silent --location --retry 3 --max-time 60 "$PACKAGE_URL.sha256" | head -c 64 | tr -d '\0') ||
      fail "cannot fetch $PACKAGE_URL.sha256: set mesh.package.sha256"
    [[ $sha256 =~ ^[0-9a-f]{64}$ ]] || fail "what is at $PACKAGE_URL.sha256 is no SHA-256: set mesh.package.sha256"
  fi
  actual=$(sha256sum "$file" | cut -d ' ' -f 1)
  [ "$actual" = "$sha256" ] || fail "the package from $PACKAGE_URL has SHA-256 $actual instead of $sha256: nothing was installed"
  mv "$file" "$file.$family"
  file=$file.$family
  stop_agent # and not earlier: a package that cannot be had must not cost the machine its place in the mesh
  "install_$family" "$file" >$state/package.log 2>&1 ||
    fail "installing Istio's package failed: $(grep -m 1 -E 'depends|error|needed' $state/package.log)"
  rm -f "$file"
  echo "$wanted" >$state/package
}

# Both take the package's configuration files even where somebody edited them: an old bootstrap template breaks a new agent.
install_deb() {
  # Somebody else may be installing packages, above all when a machine has just started.
  for _ in $(seq 40); do
    if said=$(DEBIAN_FRONTEND=noninteractive dpkg --install --force-confnew "$1" 2>&1); then return 0; fi
    printf '%s\n' "$said"
    [[ $said == *" lock"* ]] || return 1
    sleep 3
  done
  return 1
}

install_rpm() {
  rpm --upgrade --replacepkgs --oldpackage "$1" || return
  for kept in /var/lib/istio/envoy/*.rpmnew; do
    if [ -e "$kept" ]; then mv -f "$kept" "${kept%.rpmnew}"; fi
  done
}

stop_agent() {
  if systemctl is-active --quiet istio; then systemctl stop istio; fi
}

put() { # path mode owner base64
  mkdir -p "${1%/*}"
  new=$(mktemp "$1.XXXXXX")
  printf %s "$4" | base64 -d >"$new"
  chmod "$2" "$new"
  chown "$3" "$new"
  mv -f "$new" "$1"
}

# What a token says of itself; nothing of it is secret but its signature.
claim() { # key
  payload=$(cut -d . -f 2 "$TOKEN" | tr '_-' '/+')
  while [ $((${#payload} % 4)) -ne 0 ]; do payload="$payload="; done
  printf %s "$payload" | base64 -d 2>/dev/null | sed -n "s/.*\"$1\":\[\{0,1\}\"\{0,1\}\([^],\"}]*\).*/\1/p"
}

# The token was issued a moment ago, or at most an hour if the machine has a certificate. istiod's certificates count from two minutes before they
# are made, so a clock that is further behind finds them not valid yet.
check_clock() {
  issued=$(claim iat) expires=$(claim exp) now=$(date +%s)
  [ -n "$issued" ] && [ -n "$expires" ] || return 0
  if [ "$now" -lt $((issued - 120)) ]; then
    fail "the clock is at least $(((issued - now) / 60)) minutes behind the cluster's: it is $(date -u) here: set it, and keep it right (systemd-timesyncd or chrony)"
  elif [ "$now" -ge "$expires" ] && [ ! -e /etc/certs/cert-chain.pem ]; then
    fail "the clock is at least $(((now - expires) / 60)) minutes ahead of the cluster's, or this update began more than an hour ago: it is $(date -u) here: set the clock, or run the update again"
  fi
}

refused_token() {
  expires=$(claim exp) audience=$(claim aud)
  if [ -z "$expires" ]; then
    fail "the token on the machine is no token: run the update again for a new one"
  elif [ "$audience" != istio-ca ]; then
    fail "istiod refused the machine's token: it is for the audience $audience instead of istio-ca: raise machines.$MACHINE.rotation for a new one, and run the update again"
  elif [ "$expires" -lt "$(date +%s)" ]; then
    fail "istiod refused the machine's token: it expired on $(date -u -d "@$expires"), and it is $(date -u) here: run the update again for a new one, or set the clock"
  fi
  fail "istiod refused the machine's token: its service account was made anew, it is of another cluster, or mesh.clusterId is not what istiod runs with: run the update again for a new one (machines.$MACHINE.rotation forces it)"
}

# Ends with the cause where the agent's log since $1 names one.
name_cause() {
  log=$(log_of_agent "$1")
  case $log in
  *"no identities (["*) fail "istiod refused the machine's identity $(printf '%s\n' "$log" | sed -n 's/.*no identities (\[\([^]]*\).*matched \([^ {]*\).*/\1; the WorkloadGroup is for the service account \2/p' | tail -n 1): do the token and the group name the same one?" ;;
  *"service account mismatch: "*) fail "istiod refuses to register the machine: $(printf '%s\n' "$log" | sed -n 's/.*service account mismatch: "\([^"]*\)" vs "\([^"]*\)".*/its service account is \1, and its WorkloadGroup is for \2/p' | tail -n 1): run pulumi refresh and the update again, which undo what somebody changed" ;;
  *"cannot find WorkloadGroup"*) fail "istiod does not know the machine's WorkloadGroup: is it in the cluster of this mesh?" ;;
  *"client claims to be in cluster"*) fail "istiod refuses the cluster ID: mesh.clusterId must be the one that istiod runs with" ;;
  *"x509: certificate has expired or is not yet valid"*) fail "istiod's certificate is not valid at this machine's time, $(date -u): set the clock" ;;
  *"certificate signed by unknown authority"*) fail "istiod's certificate was not signed by this mesh's root: is $GATEWAY the gateway of this mesh?" ;;
  *"x509: certificate is valid for"*) fail "whoever answers at $GATEWAY port 15012 is not istiod: is it the gateway of this mesh?" ;;
  *Unauthenticated* | *"authentication failure"*) refused_token ;;
  esac
}

# And names are its own to answer (capture.sh).
ready() {
  curl --silent --fail --max-time 2 --output /dev/null http://127.0.0.1:15021/healthz/ready && [ ! -e /run/istio-vm-mesh-names-past ]
}

# Most causes are in the log within seconds; a second look tells them from what passes.
wait_ready() { # since
  for round in $(seq 120); do
    if ready; then return; fi
    [ $((round % 30)) -ne 0 ] || name_cause "$1"
    sleep 0.5
  done
  words=$(log_of_agent "$1" | grep -iE 'error|fatal|fail|panic' | tail -n 3 | cut -c 1-300 || true)
  fail "the agent is not ready after 60 s; it says: ${words:-$(log_of_agent "$1" | tail -n 3)}"
}

start_agent() {
  since=$(date '+%Y-%m-%d %H:%M:%S')
  systemctl enable --quiet istio # reads the unit anew, too
  systemctl restart istio || fail "the unit istio does not start: $(log_of_agent "$since" | tail -n 3)"
}

main() {
  set -eu -o pipefail
  umask 022
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
  changed=
  wait_for_setup
  preflight
  mkdir -p $state
  check_gateway
  [ "$(cat $state/digest 2>/dev/null)" = "$DIGEST" ] || changed=1
  install_package
  token
  check_clock
  identity=$(claim sub) another=
  [ "$(cat $state/identity 2>/dev/null)" = "$identity" ] || changed=1 another=1
  if [ -n "$changed" ]; then
    rm -f $state/digest
    stop_agent
    # The agent uses a certificate for as long as it can renew it, and does not look whether the token is somebody else's by now.
    [ -z "$another" ] || rm -f /etc/certs/key.pem /etc/certs/cert-chain.pem
    # When istiod saw it go: that was before the agent stopped, unless the kernel does not end connections.
    stopped=$(cat /run/istio-vm-mesh-left 2>/dev/null || date +%s)
    files
  fi
  if [ -n "$changed" ] || ! systemctl is-active --quiet istio; then
    # istiod reads labels, ports, probe and network once, when an entry is made: the old entry must go first.
    if [ -e $state/registration ] && [ "$(cat $state/registration)" != "$REGISTRATION" ]; then
      wait=$((${stopped:-$(date +%s)} + GRACE + 3 - $(date +%s)))
      [ "$wait" -le 0 ] || sleep "$wait"
    fi
    start_agent
    wait_ready "$since"
    echo "$identity" >$state/identity
    echo "$REGISTRATION" >$state/registration
    echo "$DIGEST" >$state/digest
  else
    # It may have waited for this token: it asks more and more rarely, and what it said of the old one is no cause any more.
    for _ in $(seq 10); do if ready; then break; fi; sleep 0.5; done
    ready || {
      start_agent
      wait_ready "$since"
    }
  fi
  echo "$DIGEST"
}

main </dev/null
