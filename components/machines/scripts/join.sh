# Joins this machine to the mesh, or brings it up to date. A change ends in the new state or in the
# old one. What can fail without the agent is done while the agent still runs, and a failure after
# that restores the old state. It compares what is on the machine with what should be, so it
# repairs, and restarts the agent only if something differs. A second run changes nothing.
# The last line of the output is the digest. An output that ends otherwise is a join that failed.
# Variables, on standard input with all that is secret:
# - MACHINE, PROJECT, STACK, REGISTRATION, NAMESPACE, WORKLOAD: the stamp.
# - GATEWAY: address or DNS name. GATEWAY_PORT.
# - TOKEN. FILES: a tar in base64.
# - PACKAGE_URL, PACKAGE_SHA256, PACKAGE_CREDENTIALS: the last two may be "".
# - GRACE_S, DEADLINE_S, DIGEST. REGISTERED: a digest of what istiod copies once.
# - JOINED_ADDRESS: the machine's. ROLE: sidecar (its traffic is redirected) or router.
# - KEPT_OUT: 1 where an entry of this program keeps the machine out of the mesh.
# - NO_ENTRY: 1 where istiod has no entry of the machine. OTHER_ENTRY: 1 where the entry under its
#   name is of no or another registration. The agent that runs gets one only by a new connection.
# - ASK. CONFIRM_S: of confirmation.sh.
# - API_SERVER, ADDRESS, LOCALITY, BOOT_UNIT: where startup.sh stands before this text.
# shellcheck disable=SC2153 # installation.sh assigns STATE
NEEDED_MIB=400 # of a package that is unpacked
SYSTEMD=235    # the version that the units need
ENFORCE=/sys/fs/selinux/enforce
PHASE='' # prepared: the agent runs on; stopped: the agent is stopped
STEP=0
STEP_NAME=''
CHANGED=''
FRESH=''
WAS_ACTIVE=''
WAS_READY=''
NEW_PACKAGE=''
DAMAGED=''
CLAIMS=''
PREVIOUS=''
PACKAGE_END=0 # when the time for a download is over, in bash's SECONDS
SPARE_S=0     # what the package did not need of that time
LOOKS=''
SSH_PORT=''
OTHER_STACK=''
LET_IN='' # nothing keeps the machine out of the mesh any more
AGENT=''  # namespace, workload and registration of the agent that runs, by the stamp

# All steps of a join go through here.
step() { # function arguments
  STEP=$((STEP + 1))
  STEP_NAME=$1
  "$@"
}

# Prints the seconds of a wait: its share of the join's time. All shares together, those of the
# roll-back included, leave time for what does not wait.
share() { # percent
  echo $((DEADLINE_S * $1 / 100))
}

log_of_agent() { # since
  journalctl --unit "$UNIT" --since "$1" --no-pager --output cat 2>/dev/null
}

claim() { # name
  claim_of "${CLAIMS:-$(token_claims <(printf %s "$TOKEN"))}" "$1"
}

# Prints what the last join remembered, by its key.
joined() { # key
  value_of "$1" "$STATE/joined"
}

# ---- The agent runs on.

check_machine() {
  local architecture family=deb
  [ "$(id -u)" = 0 ] || fail "the join needs root: let the SSH user run sudo without a password"
  check_programs
  check_systemd
  if ! has_tool_for deb; then family=rpm; fi
  has_tool_for $family ||
    fail "there is neither dpkg-deb nor rpm2cpio: Istio's sidecar comes as a package for" \
      "Debian's and Red Hat's families"
  case $(uname -m) in
  x86_64) architecture= ;;
  aarch64) architecture=-arm64 ;;
  *) fail "Istio's sidecar is built for x86_64 and aarch64; this machine is $(uname -m)" ;;
  esac
  PACKAGE_URL=${PACKAGE_URL//"{package}"/$family/istio-sidecar$architecture.$family}
  check_other_agents
}

check_programs() {
  local command programs paths number
  programs=(systemctl iptables ip ss curl pgrep sha256sum b2sum tar flock runuser unshare getent
    awk cmp find xargs)
  for command in "${programs[@]}"; do
    command -v "$command" >/dev/null ||
      fail "$command is missing: install it on the machine, or in its image$(setup_words)"
  done
  # One process for all of them.
  mapfile -t paths < <(command -v "${programs[@]}")
  mapfile -t paths < <(readlink -f "${paths[@]}")
  for number in "${!paths[@]}"; do
    [[ ${paths[number]} != */busybox* ]] ||
      fail "${programs[number]} is BusyBox's, which lacks options that the scripts need: install" \
        "coreutils, diffutils, findutils, iproute2, procps, tar and util-linux"
  done
}

# Older ones ignore the steps of a unit that run as root (`+`) and `UnsetEnvironment`.
check_systemd() {
  [[ ! $(systemctl --version 2>/dev/null) =~ ^systemd\ ([0-9]+) ]] ||
    [ "${BASH_REMATCH[1]}" -ge "$SYSTEMD" ] ||
    fail "systemd ${BASH_REMATCH[1]} is too old: the units need systemd $SYSTEMD (2017) or later"
}

# Writes what small files need, and deletes it. So a disk that is full or read-only, or a directory
# that is immutable, is refused before anything is changed.
check_directories() {
  local directory file reason
  for directory in "$RUN" "$UNITS" "$PROGRAMS" "$STATE"; do
    find_present "$directory"
    file=$PRESENT/.istio-vm-mesh.$$
    reason=$({ printf '%524288s' '' >"$file"; } 2>&1) || {
      rm -f "$file"
      fail "cannot write to $PRESENT (${reason##*: }): make room there, or let root write" \
        "there$(selinux_words)"
    }
    rm -f "$file"
  done
  check_entry
}

# The agent does not run as root.
check_entry() {
  local directory user=istio-proxy
  id $user >/dev/null 2>&1 || user=nobody
  for directory in "$PROGRAMS" "$STATE"; do
    find_present "$directory"
    runuser -u $user -- test -x "$PRESENT" ||
      fail "$PRESENT cannot be entered by the agent, which does not run as root: let all users" \
        "enter it and the directories above it ('chmod a+x')"
  done
}

# Sets PRESENT to a directory, or to the one above it that exists.
find_present() { # directory
  PRESENT=$1
  while [ ! -d "$PRESENT" ]; do PRESENT=${PRESENT%/*}; done
}

has_tool_for() { # deb or rpm
  case $1 in
  deb) command -v dpkg-deb ;;
  rpm) command -v rpm2cpio ;;
  esac >/dev/null
}

# Of Istio's own package, or of anything else that starts one.
check_other_agents() {
  local pid
  for pid in $(pgrep -x pilot-agent || true); do
    ! is_another_agent "$pid" ||
      fail "another Istio agent already runs on this machine (process $pid):" \
        "stop it and remove what started it"
  done
  [[ $(systemctl is-enabled istio 2>/dev/null) != enabled* ||
  $(systemctl show --property=ExecStart istio) != *istio-start.sh* ]] ||
    fail "Istio's own agent starts with the next boot: disable it ('systemctl disable istio')"
}

# Agents in containers have a network of their own.
is_another_agent() { # process
  [ "$(readlink "/proc/$1/ns/net")" = "$(readlink /proc/self/ns/net)" ] &&
    ! grep -qs "/$UNIT.service" "/proc/$1/cgroup"
}

# What sets a new machine up may still run. An instance group's join is part of it.
wait_for_setup() {
  local running seconds each
  [ -z "${API_SERVER:-}" ] || return 0
  seconds=$(share 20)
  for ((each = 0; each < seconds / 3; each++)); do
    running=$(running_setup)
    [ -n "$running" ] || return 0
    sleep 3
  done
  fail "$running still runs after $seconds s: see its log, and run the update again"
}

# Prints a unit that runs, or has yet to.
running_setup() {
  local services=(cloud-init cloud-config cloud-final google-startup-scripts)
  systemctl show --property=Id,ActiveState,Job "${services[@]}" 2>/dev/null |
    awk -v RS= '/(^|\n)(ActiveState=activating|Job=[1-9])/ && match($0, /(^|\n)Id=[^\n]*/) {
      unit = substr($0, RSTART, RLENGTH); sub(/.*Id=/, "", unit); sub(/\.service$/, "", unit)
      print unit; exit }' || true
}

# Prints the end of a cause, where Google's unit ran a startup script. It ran once in this boot,
# maybe before the network's NAT was there, and its failures are in its log alone. That of an
# instance group runs in the unit of the join.
setup_words() {
  local unit=${BOOT_UNIT:-google-startup-scripts} words
  systemctl cat "$unit" >/dev/null 2>&1 || return 0
  words=$(journalctl --unit "$unit" --boot --no-pager --output cat 2>/dev/null |
    grep -iE 'error|fail|unable|could not|E: ' | tail -n 1 | cut -c 1-300 || true)
  echo "; its startup script ended without it (${words:-no error is in its log}):" \
    "'systemctl restart $unit' runs it again"
}

# Requests a decision where the machine is another's, or was joined by this stack under another
# name.
check_owner() {
  local other
  if ! is_stamped; then
    # A machine of an instance group is of no other stack.
    is_labelled || [ -n "${API_SERVER:-}" ] || require_no_agent "$STATE/overrides.env"
    return 0
  fi
  other=("$(stamp project)" "$(stamp stack)" "$(stamp machine)" "$(stamp registration)")
  AGENT="$(stamp namespace) $(stamp workload) ${other[3]:--}"
  case "${other[*]}" in
  "$PROJECT $STACK $MACHINE $REGISTRATION") return ;;
  "$PROJECT $STACK "*) ;;
  *) OTHER_STACK=1 CHANGED=1 AGENT="$NAMESPACE $WORKLOAD ${other[3]:--}" ;;
  esac
  # shellcheck disable=SC2046 # words, none of which is empty
  ask owner $(for key in project stack machine registration address namespace workload; do
    value=$(stamp "$key")
    echo "${value:--}"
  done)
}

check_gateway() {
  wait "$GATEWAY_LOOK" ||
    fail "cannot reach the east-west gateway at $GATEWAY port $GATEWAY_PORT: check the gateway's" \
      "address and the firewall between this machine and the gateway"
}

# A host that cannot close its ports is refused (redirect_guard.sh).
check_fail_closed() {
  local cause
  [ -n "$FAIL_CLOSED" ] || return 0
  cause=$(files_tar | tar --extract --to-stdout "${PROGRAMS#"$ROOT/"}/scripts/redirect_guard.sh" |
    bash -s possible 2>&1 3<&-) ||
    fail "failClosed is not possible on this machine: ${cause:-see redirect_guard.sh}"
}

# Begins what takes long, changes nothing, and waits for nothing: beside the steps until its result.
begin_looks() {
  LOOKS=$(mktemp -d "$RUN/istio-vm-mesh-looks.XXXXXX")
  files_tar | tar --extract --verbose --no-same-owner --directory "$LOOKS" >"$LOOKS/paths"
  exec {FACTS}< <(host_facts "$LOOKS" 2>/dev/null 3<&- 9<&-)
  can_connect "$GATEWAY" "$GATEWAY_PORT" 5 >/dev/null 2>&1 3<&- 9<&- &
  GATEWAY_LOOK=$!
  is_intact "$PROGRAMS/packages/$(expected_digest)" >/dev/null 2>&1 3<&- 9<&- &
  PACKAGE_LOOK=$!
}

# What still looks then ends by itself: a signal might reach it with the traps of this script.
end_looks() {
  [ -z "$LOOKS" ] || rm -rf "$LOOKS"
}

# What the redirection meets on this host is looked at before anything is changed. An application
# that Envoy would not reach is refused.
check_host() {
  local line='' problems=''
  [ "$ROLE" = sidecar ] || return 0
  while IFS= read -r -u "$FACTS" line && [ "$line" != 'refusals end' ]; do
    problems+="${problems:+;}${line#refusal }"
  done
  [ -n "$line" ] # or it has ended before
  [ -z "$problems" ] || fail "$problems"
}

# Runs redirect_host.sh with the environment of the agent that this join brings.
host_facts() { # directory with the join's files
  [ "$ROLE" = sidecar ] || return 0
  as_unit "$1" env INSTANCE_IP="${ADDRESS:-$JOINED_ADDRESS}" \
    bash "$1${PROGRAMS#"$ROOT"}/scripts/redirect_host.sh" 2>/dev/null
}

# Before it acts, in one list.
report_changes() {
  local changes
  changes=$(sed -n 's/^change //p' <&"$FACTS")
  [ -n "$changes" ] || return 0
  if [ -n "${ASK:-}" ]; then
    ask changes "$(base64 -w 0 <<<"$changes")"
  else
    printf 'this host, from now on: %s\n' "${changes//$'\n'/; }" >&2
  fi
}

# The token was issued a moment ago. istiod's certificates count from two minutes before they are
# made, so a clock that is further behind finds them not valid yet.
check_token() {
  local issued expires now
  CLAIMS=$(token_claims <(printf %s "$TOKEN"))
  issued=$(claim iat)
  expires=$(claim exp)
  IDENTITY=$(claim sub)
  now=$(date +%s)
  [[ $issued =~ ^[0-9]+$ && $expires =~ ^[0-9]+$ ]] ||
    fail "the delivered token is not of a service account: run the update again"
  [ "$(claim aud)" = istio-ca ] ||
    fail "the machine's token is for the audience $(claim aud) instead of istio-ca"
  if [ "$now" -lt $((issued - 120)) ]; then
    fail "the clock is at least $(((issued - now) / 60)) minutes behind the cluster's:" \
      "it is $(date -u) here: set it, and keep it right (systemd-timesyncd or chrony)"
  elif [ "$now" -ge "$expires" ] && [ ! -e "$CERTS/cert-chain.pem" ]; then
    fail "the clock is at least $(((now - expires) / 60)) minutes ahead of the cluster's," \
      "or this update began hours ago:" \
      "it is $(date -u) here: set the clock, or run the update again"
  fi
}

# Prints every path, below ROOT, that a join changes.
managed_paths() {
  {
    cat "$LOOKS/paths"
    cat "$STATE/files" 2>/dev/null || true
    printf '%s\n' "$STATE"/{owner,files,written,joined,ssh-port} "$TOKEN_FILE" "$PROGRAMS/current" \
      "$CERTS"/{key,cert-chain}.pem "$UNITS/multi-user.target.wants/$UNIT.service"
  } | sed "s#^$ROOT/*##" | sort -u
}

# Copies what the join may change. A join that was killed left such a copy: that is the old state.
remember() {
  local path present=()
  if agent_is_up; then WAS_ACTIVE=1; fi
  if [ -n "$WAS_ACTIVE" ] && is_ready; then WAS_READY=1; fi
  [ -e "$STATE" ] || [ -e "$PROGRAMS" ] || FRESH=1
  if [ -e "$BEFORE/complete" ]; then
    if [ -e "$BEFORE/active" ]; then WAS_ACTIVE=1 WAS_READY=1; fi
    # The agent that runs may be the one that was begun, whatever its files are now.
    if [ -e "$BEFORE/stopped" ]; then CHANGED=1; fi
    if [ -e "$BEFORE/fresh" ]; then FRESH=1; else restore_files stopped; fi
  fi
  forget
  mkdir -p "$STATE"
  (umask 077 && mkdir "$BEFORE" "$BEFORE/files")
  [ -z "$FRESH" ] || : >"$BEFORE/fresh"
  [ -z "$WAS_ACTIVE" ] || : >"$BEFORE/active"
  managed_paths >"$BEFORE/paths"
  while read -r path; do
    if [ -e "$ROOT/$path" ] || [ -L "$ROOT/$path" ]; then present+=("$path"); fi
  done <"$BEFORE/paths"
  [ ${#present[@]} = 0 ] ||
    (cd "$ROOT/" && cp -a --parents --target-directory "$BEFORE/files" "${present[@]}")
  write_to_disk "$BEFORE"
  : >"$BEFORE/complete"
  sync "$BEFORE/complete" "$BEFORE"
}

write_stamp() {
  printf '%s=%s\n' project "$PROJECT" stack "$STACK" machine "$MACHINE" \
    registration "$REGISTRATION" namespace "$NAMESPACE" workload "$WORKLOAD" \
    address "${ADDRESS:-$JOINED_ADDRESS}" |
    write_file "$STATE/owner"
}

# Its home directory shows that a join created it: no file that may be lost.
create_user() {
  if id istio-proxy >/dev/null 2>&1; then return; fi
  if command -v useradd >/dev/null; then
    getent group istio-proxy >/dev/null || groupadd --system istio-proxy
    useradd --system --gid istio-proxy --home-dir "$STATE" --no-create-home \
      --shell /usr/sbin/nologin istio-proxy
  else
    adduser --system --group --home "$STATE" --no-create-home istio-proxy
  fi >/dev/null ||
    fail "the user istio-proxy cannot be created: create it, or see why useradd fails"
}

# Prints the digest of the package; nothing where its server has yet to say it. An unchanged package
# needs no network.
expected_digest() {
  if [ -n "$PACKAGE_SHA256" ]; then
    echo "$PACKAGE_SHA256"
  elif [ "$(joined package-url)" = "$PACKAGE_URL" ]; then
    joined package-sha256
  fi
}

# The package's own directory is named by its digest. It is complete as soon as it is described.
provide_package() {
  SPARE_S=$(share 21)
  SHA256=$(expected_digest)
  if [ -z "$SHA256" ]; then
    fetch_digest
    is_intact "$PROGRAMS/packages/$SHA256" &
    PACKAGE_LOOK=$!
  fi
  PACKAGE=$PROGRAMS/packages/$SHA256
  if wait "$PACKAGE_LOOK"; then return; fi
  CHANGED=1
  check_space
  mkdir -p "$PROGRAMS/packages"
  rm -rf "$PROGRAMS/packages"/{.new.*,.damaged}
  NEW_PACKAGE=$(mktemp -d "$PROGRAMS/packages/.new.XXXXXX")
  fetch_package "$NEW_PACKAGE/package"
  mkdir "$NEW_PACKAGE/content"
  unpack "$NEW_PACKAGE/package" "$NEW_PACKAGE/content" >"$NEW_PACKAGE/log" 2>&1 ||
    fail "the package from $PACKAGE_URL cannot be unpacked: $(tail -n 1 "$NEW_PACKAGE/log")"
  chown -R root:root "$NEW_PACKAGE/content"
  chmod -R u=rwX,go=rX "$NEW_PACKAGE/content"
  check_package "$NEW_PACKAGE/content"
  SPARE_S=$((PACKAGE_END > SECONDS ? PACKAGE_END - SECONDS : 0))
  if [ -e "$PACKAGE" ] || [ -L "$PACKAGE" ]; then
    DAMAGED=1 # it is replaced while the agent is stopped
  else
    mv -T "$NEW_PACKAGE/content" "$PACKAGE"
    rm -rf "$NEW_PACKAGE"
    NEW_PACKAGE=$PACKAGE
  fi
}

# Describes a package that came with this join, once it is in use. To read and to write all of it
# takes longer than anything else. After a power cut before that, the former package is restored.
seal_package() {
  [ -n "$NEW_PACKAGE" ] || return 0
  describe "$PACKAGE" >"$STAGING/description"
  mv "$STAGING/description" "$PACKAGE/.description"
  write_to_disk "$PACKAGE"
}

is_intact() { # directory
  [ -d "$1" ] && [ -e "$1/.description" ] &&
    [ "$(describe "$1" 2>/dev/null)" = "$(cat "$1/.description")" ]
}

check_space() {
  local free
  find_present "$PROGRAMS"
  free=$(df --output=avail -k "$PRESENT")
  free=${free##*[!0-9]}
  [ "$free" -gt $((NEEDED_MIB * 1024)) ] ||
    fail "only $((free / 1024)) MiB are free under $PRESENT," \
      "the sidecar needs $NEEDED_MIB: make room"
}

# Prints what a URL answers. It is the one request that may go through a proxy of the environment.
# No protocol falls back to a weaker one. As istio-proxy, whose connections are not redirected.
# Credentials are on standard input, and are not sent over http://.
download() { # URL seconds
  local protocols='=https' credentials=$PACKAGE_CREDENTIALS
  [[ $1 != http://* ]] || protocols='=http,https' credentials=''
  { [ -z "$credentials" ] || printf 'user = "%s"\n' "$(escape "$credentials")"; } |
    runuser -u istio-proxy -- timeout "$2" curl --disable --config - --fail --silent --show-error \
      --location --proto "$protocols" --proto-redir "$protocols" --retry 3 --connect-timeout 20 "$1"
}

escape() { # text
  local text=${1//\\/\\\\}
  printf %s "${text//\"/\\\"}"
}

fetch_digest() {
  [[ $PACKAGE_URL == https://* ]] ||
    fail "a digest from the package's own server proves nothing without TLS: set" \
      "mesh.package.sha256, or an https:// URL"
  SHA256=$(download "$PACKAGE_URL.sha256" "$(share 3)" 2>/dev/null | head -c 64 | tr -d '\0') ||
    fail "cannot fetch $PACKAGE_URL.sha256: set mesh.package.sha256"
  [[ $SHA256 =~ ^[0-9a-f]{64}$ ]] ||
    fail "$PACKAGE_URL.sha256 holds no SHA-256: set mesh.package.sha256"
}

fetch_package() { # path
  local actual reason
  local seconds=$SPARE_S
  PACKAGE_END=$((SECONDS + seconds))
  download "$PACKAGE_URL" "$seconds" >"$1" 2>"$1.log" || {
    reason=$(tail -n 1 "$1.log")
    fail "cannot fetch Istio's package from $PACKAGE_URL" \
      "(${reason:-it takes more than $seconds s}): check mesh.package.url and the route from the" \
      "machine to it"
  }
  actual=$(sha256sum "$1")
  [ "${actual%% *}" = "$SHA256" ] ||
    fail "the package from $PACKAGE_URL has SHA-256 ${actual%% *} instead of $SHA256:" \
      "nothing was installed"
}

# By what the file is, not by its name. No package manager, so no lock, dependencies or scripts.
unpack() { # file directory
  local magic
  IFS= read -r -N 7 magic <"$1"
  if [ "$magic" = '!<arch>' ]; then
    dpkg-deb --extract "$1" "$2"
  elif command -v cpio >/dev/null; then
    rpm2cpio "$1" | (cd "$2" && cpio --extract --make-directories --no-absolute-filenames --quiet)
  else
    rpm2archive - <"$1" | tar --extract --gzip --directory "$2"
  fi
}

# A slow disk, a busy processor or a scanner of files delays a program's first start. So it may take
# the time that the download did not use.
check_package() { # directory
  local program output least_s limit_s
  least_s=$(share 1)
  [ -r "$1/var/lib/istio/envoy/envoy_bootstrap_tmpl.json" ] ||
    fail "the package from $PACKAGE_URL has no bootstrap template: is it Istio's sidecar?"
  chmod 0755 "$NEW_PACKAGE"
  for program in "pilot-agent version" "envoy --version"; do
    limit_s=$((PACKAGE_END - SECONDS))
    [ "$limit_s" -ge "$least_s" ] || limit_s=$least_s
    # shellcheck disable=SC2086 # words
    output=$(runuser -u istio-proxy -- timeout "$limit_s" "$1/usr/local/bin/"$program 2>&1) || {
      [ $? != 124 ] || output="it did not end within $limit_s s"
      fail "${program%% *} of the package from $PACKAGE_URL does not run on this machine:" \
        "$(printf '%s\n' "$output" | tail -n 1 | cut -c 1-300)$(mount_words "$1")$(selinux_words)"
    }
  done
}

# Prints the end of a cause, where SELinux's policy may refuse what this program does.
selinux_words() {
  [ "$(cat "$ENFORCE" 2>/dev/null)" != 1 ] ||
    echo " (SELinux enforces its policy here: 'ausearch -m AVC -ts recent' shows what it refused)"
}

# Prints the end of a cause, where nothing can be run from a directory's file system.
mount_words() { # directory
  [[ ,$(findmnt --noheadings --output OPTIONS --target "$1" 2>/dev/null), != *,noexec,* ]] ||
    echo " ($(findmnt --noheadings --output TARGET --target "$1") is mounted with noexec)"
}

files_tar() {
  printf %s "$FILES" | base64 -d
}

# Fills in what only a machine of an instance group has.
render() { # path
  local filled="s/@MACHINE@/$MACHINE/g; s/@ADDRESS@/${ADDRESS:-}/g; s|@LOCALITY@|${LOCALITY:-}|g"
  [ -z "${ADDRESS:-}" ] || sed -i "$filled" "$1"
}

stage_files() {
  local path
  rm -rf "$STAGING"
  (umask 077 && mkdir "$STAGING")
  files_tar | tar --extract --verbose --touch --preserve-permissions --directory "$STAGING" \
    >"$STAGING/paths"
  while read -r path; do render "$STAGING/$path"; done <"$STAGING/paths"
  describe_files "$STAGING" <"$STAGING/paths" >"$STAGING/written"
}

# Compares the machine itself, not what an earlier join remembers of it.
compare() {
  [ "$(joined digest)" = "$DIGEST" ] || CHANGED=1
  [ -z "$CHANGED" ] || return 0
  [ "$(joined identity)" = "$IDENTITY" ] || CHANGED=1
  [ "$(readlink "$PROGRAMS/current")" = "packages/$SHA256" ] || CHANGED=1
  cmp -s "$STAGING/paths" "$STATE/files" || CHANGED=1
  cmp -s "$STAGING/written" "$STATE/written" || CHANGED=1
  [ "$(describe_files "$ROOT/" <"$STAGING/paths")" = "$(<"$STAGING/written")" ] || CHANGED=1
  has_certificates "$STAGING/${CERTS#"$ROOT"/}/root-cert.pem" "$CERTS/root-cert.pem" || CHANGED=1
  ! has_other_identity || CHANGED=1
}

has_certificates() { # those of a file, in another file
  local present certificate certificates
  [ -f "$2" ] || return
  present=$(tr -d '[:space:]' <"$2")
  mapfile -t certificates < <(tr -d '[:space:]' <"$1" | sed 's/-----ENDCERTIFICATE-----/&\n/g')
  for certificate in "${certificates[@]}"; do
    [[ $present == *"$certificate"* ]] || return
  done
}

# istio-proxy owns the directories that the agent writes to, and none that has one in it.
make_directories() {
  install -d -m 0755 -o root -g root "$STATE" "$PROGRAMS" "$PROGRAMS/scripts" \
    "$STATE"/{etc,etc/istio,etc/istio/config,var,var/run,var/run/secrets,var/run/secrets/tokens}
  install -d -m 0755 -o istio-proxy -g "$(id -gn istio-proxy)" "$CERTS" \
    "$STATE"/{etc/istio/proxy,var/run/secrets/workload-spiffe-uds}
}

deliver_token() {
  printf %s "$TOKEN" >"$STAGING/token"
  chown istio-proxy: "$STAGING/token"
  chmod 0600 "$STAGING/token"
  mv -fT "$STAGING/token" "$TOKEN_FILE"
}

# DNS queries go to the agent (redirect.sh), and it is ready. A look at the file takes no process.
is_ready() {
  [ ! -e "$RUN/istio-vm-mesh-redirect/bypassed" ] &&
    direct_curl --max-time 2 --output /dev/null http://127.0.0.1:15021/healthz/ready
}

# Waits until the agent is ready.
becomes_ready() { # seconds
  local end=$((SECONDS + $1))
  until is_ready; do
    [ $SECONDS -lt $end ] || return
    sleep 0.5
  done
}

# The agent may have waited for this token, and retries with back-off. A machine of an instance
# group joins at each boot, while its agent starts. A restart would only delay that.
is_in_order() {
  if [ -n "${API_SERVER:-}" ]; then
    agent_is_up && becomes_ready "$(share 5)"
  else
    agent_runs && becomes_ready 5
  fi
}

ask_to_stop() {
  # shellcheck disable=SC2086 # words
  if agent_runs; then ask stop $AGENT; fi
}

# ---- The agent is stopped: from here on, a failure brings back what was there.

stop() {
  PHASE=stopped
  : >"$BEFORE/stopped"
  STOP_TIMEOUT_S=$(share 7)
  ! agent_is_up || stop_agent ||
    fail "the agent did not stop within $((STOP_TIMEOUT_S + $(stop_s))) s:" \
      "see 'journalctl --unit $UNIT' on it"
  # Where withdraw.sh ended the connection, it did so before the agent stopped.
  read -r STOPPED 2>/dev/null <"$RUN/istio-vm-mesh-withdrawn" || STOPPED=$(date +%s)
}

# Whether the certificate has another identity than the token is for. The agent renews it with
# itself, and istiod signs the same identity again. In DER the byte after it may be any one.
has_other_identity() {
  local account=${IDENTITY#system:serviceaccount:} domain identity
  [ -f "$CERTS/cert-chain.pem" ] || return 1
  domain=$(value_of TRUST_DOMAIN "$STAGING${STATE#"$ROOT"}/cluster.env")
  identity=$(sed -n '/^-----END/q; /^-----/!p' "$CERTS/cert-chain.pem" |
    base64 -d 2>/dev/null | grep -aoE 'spiffe://[!-~]+' | head -n 1)
  [[ -n $identity && $identity != "spiffe://${domain//\'/}/ns/${account%:*}/sa/${account#*:}"* ]]
}

drop_certificate() {
  if [ "$(joined identity)" != "$IDENTITY" ] || [ -n "$OTHER_STACK" ] || has_other_identity; then
    shred_file "$CERTS/key.pem"
    rm -f "$CERTS/cert-chain.pem"
  fi
}

write_files() {
  local path directory
  local -A staged=()
  # What an earlier join wrote and this one does not, such as a sidecar's files on a gateway.
  if [ -e "$STATE/files" ]; then
    sort "$STATE/files" | comm -23 - <(sort "$STAGING/paths") | while read -r path; do
      [[ $path != *.service ]] || systemctl stop "${path##*/}" || true
      rm -f "$ROOT/$path"
    done
  fi
  while read -r path; do
    staged["$ROOT/${path%/*}"]+=" $STAGING/$path"
  done <"$STAGING/paths"
  for directory in "${!staged[@]}"; do
    # shellcheck disable=SC2086 # words
    place "$directory" ${staged["$directory"]}
  done
  mv -f "$STAGING/paths" "$STAGING/files"
  mv -f --target-directory "$STATE" "$STAGING/files" "$STAGING/written"
  keep_ssh_port 3<&- 9<&- &
  SSH_PORT=$!
}

# SSH stays reachable by the port that this join came by.
keep_ssh_port() {
  as_unit "$ROOT" bash "$PROGRAMS/scripts/redirect.sh" ssh-port
}

switch_package() {
  if [ -n "$DAMAGED" ]; then
    mv -T "$PACKAGE" "$PROGRAMS/packages/.damaged"
    mv -T "$NEW_PACKAGE/content" "$PACKAGE"
  fi
  PREVIOUS=$(readlink "$PROGRAMS/current" || true)
  PREVIOUS=${PREVIOUS#packages/}
  ln -sfn "packages/$SHA256" "$PROGRAMS/current.istio-vm-mesh"
  mv -fT "$PROGRAMS/current.istio-vm-mesh" "$PROGRAMS/current"
  if command -v restorecon >/dev/null; then
    restorecon -RF "$PROGRAMS" "$STATE" "$UNITS/$UNIT"* || true
  fi
}

# istiod reads labels, ports, probe and network once, when it makes an entry: the old entry must be
# deleted before. istiod deletes it GRACE_S seconds after the agent's connection ended.
wait_for_deregistration() {
  local seconds
  case "$(joined registered)" in
  '') return ;;
  "$REGISTERED") [ -n "$OTHER_ENTRY" ] || return 0 ;;
  esac
  seconds=$((STOPPED + GRACE_S + 3 - $(date +%s)))
  [ "$seconds" -le $((GRACE_S + 3)) ] || seconds=$((GRACE_S + 3)) # the clock was set back
  for _ in $(seq "$seconds"); do sleep 1; done
  # Where that istiod has ended meanwhile, the next one would take the entry over as it is.
  ASK=${ASK:+120} GOES_ON=1 ask gone
}

# What keeps the machine out ends with the answer, because istiod would refuse the new agent, too.
# The agent of before must not come back after it. So the join goes on where the connection ends
# here: istiod admits the new agent then, or refuses it as before.
ask_to_start() {
  [ -n "$KEPT_OUT" ] || return 0
  trap '' HUP
  ASK=${ASK:+120} GOES_ON=1 ask start
  # shellcheck disable=SC2034 # confirmation.sh reads it
  LET_IN=1
}

# `enable` loads the units by itself otherwise.
load_units() {
  systemctl enable --quiet --no-reload "$UNIT"
  systemctl daemon-reload
  wait "$SSH_PORT"
}

fail_to_start() { # status of timeout, its seconds, since
  [ "$1" != 124 ] ||
    fail "the unit $UNIT has not started within $2 s: is the machine too busy, or does a step of" \
      "the unit hang? See 'journalctl --unit $UNIT' on it"
  fail "the unit $UNIT does not start: $(log_of_agent "$3" | tail -n 3)$(selinux_words)"
}

# Restarts a unit within these seconds, or returns 124. A machine whose processor is throttled
# starts units slowly. So each may take what is left of the time that the package did not need.
restart_within() { # seconds unit
  local began=$SECONDS status=0 more
  timeout $(($1 + SPARE_S)) systemctl restart "$2" || status=$?
  more=$((SECONDS - began - $1))
  [ $more -le 0 ] || SPARE_S=$((SPARE_S > more ? SPARE_S - more : 0))
  return $status
}

start_agent() {
  local since seconds is_guarded=1 spare_s=$SPARE_S
  seconds=$(share 6)
  since=$(date '+%Y-%m-%d %H:%M:%S')
  systemctl is-active --quiet "$UNIT-redirect" || is_guarded=''
  restart_within "$seconds" "$UNIT" || fail_to_start $? $((seconds + spare_s)) "$since"
  [ -z "$is_guarded" ] || restart_guard # one that began with the agent has the new scripts
  wait_ready "$since"
}

# The guard runs while the agent is stopped, with the scripts that it began with. For an instant
# without it the application's ports are open, unless they are redirected.
restart_guard() {
  systemctl try-restart "$UNIT-redirect" 2>/dev/null || true
}

fail_for_token() {
  local expires audience
  expires=$(claim exp)
  audience=$(claim aud)
  if [ -z "$expires" ]; then
    fail "the token on the machine is no token: run the update again for a new one"
  elif [ "$audience" != istio-ca ]; then
    fail "istiod refused the machine's token: it is for the audience $audience instead of" \
      "istio-ca: raise the rotation of $MACHINE in the stack file for a new one, and run the" \
      "update again"
  elif [ "$expires" -lt "$(date +%s)" ]; then
    fail "istiod refused the machine's token: it expired on $(date -u -d "@$expires"), and it is" \
      "$(date -u) here: run the update again for a new one, or set the clock"
  fi
  fail "istiod refused the machine's token: its service account was recreated, it is of another" \
    "cluster, or mesh.clusterId is not what istiod runs with: run the update again for a new one" \
    "(another rotation of $MACHINE in the stack file forces it)"
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
    fail "what answers at $GATEWAY port $GATEWAY_PORT is not istiod:" \
      "is it the gateway of this mesh?"
    ;;
  *Unauthenticated* | *"authentication failure"*) fail_for_token ;;
  esac
}

# Most causes are in the log within seconds; a second look distinguishes them from those that pass.
wait_ready() { # since
  local errors seconds end
  seconds=$(share 12)
  end=$((SECONDS + seconds))
  until becomes_ready $((seconds / 4)); do
    diagnose "$1"
    [ $SECONDS -lt $end ] || {
      errors=$(log_of_agent "$1" | grep -iE 'error|fatal|fail|panic' | tail -n 3 |
        cut -c 1-300 || true)
      fail "the agent is not ready after $seconds s; its log:" \
        "${errors:-$(log_of_agent "$1" | tail -n 3)}"
    }
  done
}

record() {
  printf '%s\n' "digest=$DIGEST" "identity=$IDENTITY" "registered=$REGISTERED" \
    "package-url=$PACKAGE_URL" "package-sha256=$SHA256" |
    write_file "$STATE/joined"
  systemctl is-enabled --quiet "$UNIT" || systemctl enable --quiet "$UNIT"
  # Where it was stopped by hand; a gateway has none.
  [ ! -e "$UNITS/$UNIT-redirect.service" ] || systemctl is-active --quiet "$UNIT-redirect" ||
    systemctl start "$UNIT-redirect" ||
    fail "the unit $UNIT-redirect does not start: see 'journalctl --unit $UNIT-redirect' on it"
}

# ---- The end, and the way back.

# Nothing after this brings back the old state. The package of before stays beside the new one.
complete() {
  local package packages=()
  PHASE=''
  end_looks
  forget
  for package in "$PROGRAMS/packages"/{.new.*,.damaged,*}; do
    case ${package##*/} in
    "$SHA256" | "$PREVIOUS") ;;
    .*) packages+=("$package") ;;
    *) [ -z "$PREVIOUS" ] || [ "$PREVIOUS" = "$SHA256" ] || packages+=("$package") ;;
    esac
  done
  rm -rf "${packages[@]}"
}

restore_package() {
  if [ -d "$PROGRAMS/packages/.damaged" ]; then
    rm -rf "$PACKAGE" && mv -T "$PROGRAMS/packages/.damaged" "$PACKAGE" || return
  fi
  if [ -n "$NEW_PACKAGE" ]; then rm -rf "$NEW_PACKAGE"; fi
}

bring_back() { # phase
  STOP_TIMEOUT_S=$(share 7)
  if [ "$1" = stopped ]; then stop_agent; fi
  if [ -n "$FRESH" ]; then
    remove_installation
    return
  fi
  if [ ! -e "$BEFORE/complete" ]; then
    forget # it had not changed anything
    return
  fi
  restore_files "$1" && restore_package || return
  if [ "$1" = stopped ]; then
    systemctl daemon-reload
    if [ -n "$WAS_ACTIVE" ]; then timeout "$(share 6)" systemctl restart "$UNIT" || return; fi
    restart_guard
    is_ready_again || return
  fi
  forget
}

# An agent that was not ready before need not be so now.
is_ready_again() {
  [ -z "$WAS_READY" ] || becomes_ready "$(share 6)"
}

# What fail does before it names the cause.
# shellcheck disable=SC2034 # lib.sh prints ENDING
before_failure() {
  local phase=$PHASE
  FAILED=1
  end_looks
  wait "$SSH_PORT" 2>/dev/null || true # it writes a file that may be brought back
  rm -f "$BEFORE/unconfirmed.$$".*
  PHASE=''
  [ -n "$phase" ] || return 0
  # What comes now cannot be interrupted.
  trap '' TERM HUP INT
  if ! bring_back "$phase" >/dev/null 2>&1; then
    ENDING="; what was there before could not be brought back either: run the update again"
  elif [ -n "$FRESH" ]; then
    ENDING="; nothing of the join is left on the machine"
  elif [ -n "$WAS_ACTIVE" ]; then
    ENDING="; the machine runs as before"
  else
    ENDING="; the machine is as before"
  fi
}
FAILED=''

# At every end: one that nothing has named is an interruption, or a command that failed.
finish() {
  [ -z "$FAILED$COMPLETE" ] || return 0
  fail "the join ended at its step $STEP ($STEP_NAME)${INTERRUPTED:+ because it was interrupted}"
}
COMPLETE=''
INTERRUPTED=''

main() {
  set -eu -o pipefail
  umask 022
  clean_environment
  trap finish EXIT
  trap 'INTERRUPTED=1; exit 1' TERM HUP INT
  trap '' PIPE # a lost connection is seen by what is written next
  step wait_for_setup
  step check_machine
  step check_directories
  step take_lock join
  step begin_looks
  step check_owner
  step check_gateway
  step check_token
  step check_host
  step check_fail_closed
  PHASE=prepared
  step remember
  step write_stamp
  step create_user
  step provide_package
  step stage_files
  step compare
  step make_directories
  step deliver_token
  if [ -n "$CHANGED$KEPT_OUT$NO_ENTRY$OTHER_ENTRY" ] || ! is_in_order; then
    step report_changes
    step ask_to_stop
    step arm
    step stop
    step drop_certificate
    step write_files
    step switch_package
    step wait_for_deregistration
    step ask_to_start
    step load_units
    step start_timer
    step start_agent
    step confirm
  fi
  step seal_package
  step record
  step complete
  COMPLETE=1
  echo "$DIGEST"
}

if ! (return 0 2>/dev/null); then main 3<&0 </dev/null; fi
