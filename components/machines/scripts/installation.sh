# What of this program is on a machine: where it is, whose it is, and how it is removed. The text of
# join.sh or leave.sh follows. Variables: MACHINE, PROJECT, STACK, REGISTRATION, ASK.
ROOT='' # of tests
PROGRAMS=/opt/istio-vm-mesh
STATE=/var/lib/istio-vm-mesh
UNITS=/etc/systemd/system
RUN=/run
UNIT=istio-vm-mesh
CERTS=$STATE/etc/certs
TOKEN_FILE=$STATE/var/run/secrets/tokens/istio-token
BEFORE=$STATE/before   # what was there, until a join is complete
STAGING=$STATE/staging # of root alone
STOP_TIMEOUT_S=60
KEPT_UNIT='' # the unit that runs this text

# One join or leave at a time. The lock ends with this process and its children. Another one may
# be of an update that was killed. It ends by itself, so the computer that runs Pulumi is asked to
# wait.
take_lock() { # purpose
  local other
  # A leave removes the file.
  until exec 9<>"$RUN/istio-vm-mesh.lock" && flock --nonblock 9 &&
    [ /proc/self/fd/9 -ef "$RUN/istio-vm-mesh.lock" ]; do
    other=$(cat "$RUN/istio-vm-mesh.lock" 2>/dev/null || true)
    [ -n "${ASK:-}" ] || fail "${other:-another join} is still running on this machine"
    ask busy "$(base64 -w 0 <<<"${other:-another join}")"
  done
  echo "the $1 of $MACHINE from the stack $PROJECT/$STACK (process $$, since $(date -u))" \
    >"$RUN/istio-vm-mesh.lock"
}

# Prints a value of the stamp, which identifies what joined this machine; nothing where it has none.
# A join that was killed over an earlier one has not joined it.
stamp() { # key
  local file=$STATE/owner
  if was_killed; then file=$BEFORE/files${file#"$ROOT"}; fi
  value_of "$1" "$file"
}

# Prints a value of the stamp of the last join, which may have been killed.
pending_stamp() { # key
  value_of "$1" "$STATE/owner"
}

# A join ended without bringing back what was there.
was_killed() {
  [ -e "$BEFORE/complete" ] && [ ! -e "$BEFORE/fresh" ]
}

# The stamp is there, and was not cut short.
is_stamped() {
  local key
  for key in project stack machine; do [ -n "$(stamp "$key")" ] || return; done
  [ "$(stamp registration | wc -l)" -gt 0 ]
}

# The agent that is here has the label of this registration. So it is this stack's without a stamp.
is_labelled() {
  [ -n "$REGISTRATION" ] && ! was_killed &&
    grep -qsF "\"$REGISTRATION\"" "$STATE/overrides.env"
}

# For a machine without a stamp. An agent that runs, or may start again, may be another stack's.
require_no_agent() { # file without which none starts again
  agent_is_up || [ -e "$1" ] || return 0
  fail "the unit $UNIT is here, and $STATE/owner is missing or cut short, which names the stack" \
    "that it is of: nothing was changed. If it is of no other stack, end and delete it" \
    "('systemctl disable --now $UNIT; rm -r $PROGRAMS $STATE $UNITS/$UNIT*')," \
    "and run the update again"
}

# Prints the value of the line `<key>=<value>` of a file that may be missing.
value_of() { # key file
  local line
  [ -e "$2" ] || return 0
  while IFS= read -r line; do
    [[ $line != "$1="* ]] || printf '%s\n' "${line#*=}"
  done <"$2"
}

# A key that was in a directory of istio-proxy is taken out of it first: it may be a link.
shred_file() { # path
  local private=$STATE/.shredded
  [ -e "$1" ] || [ -L "$1" ] || return 0
  mv -fT "$1" "$private" || return
  if [ -L "$private" ]; then
    rm -f "$private"
  else
    shred --remove "$private" 2>/dev/null || rm -f "$private"
  fi
}

# Writes files to the disk, with all that is below a directory.
write_to_disk() { # path
  find "$1" \( -type f -o -type d \) -print0 | xargs -0 sync
}

# Prints what a join may have changed, and the directories that it is in. Each ends with a NUL. The
# agent's own files come and go.
changed_paths() {
  local path
  while read -r path; do
    path=$ROOT/$path
    [[ $path != "$CERTS"/* ]] || continue
    [ -L "$path" ] || [ ! -f "$path" ] || printf '%s\0' "$path"
    [ ! -d "${path%/*}" ] || printf '%s\0' "${path%/*}"
  done <"$BEFORE/paths"
}

# Each file is complete before it gets its name: readers see it whole. Of the directories of
# istio-proxy nothing but a name is used. Another file system is reached by a copy. So is another
# mount of the same one, which no comparison of devices shows.
place() { # directory files
  local file new
  [ -d "$1" ] || mkdir -p "$1" || return
  if [[ $1/ == "$STATE"/* ]]; then
    mv -f --target-directory "$1" "${@:2}"
  else
    for file in "${@:2}"; do
      new=$1/${file##*/}
      cp --no-dereference --preserve=mode,ownership,timestamps "$file" "$new.istio-vm-mesh" &&
        mv -fT "$new.istio-vm-mesh" "$new" || return
    done
  fi
}

# While the agent ran on, nothing but the stamp and the token changed.
restore_files() { # phase
  local path
  [ -d "$STAGING" ] || (umask 077 && mkdir "$STAGING") || return
  mkdir -p "$STAGING/back" || return
  while read -r path; do
    [ "$1" = stopped ] || [[ $ROOT/$path == "$STATE/owner" || $ROOT/$path == "$TOKEN_FILE" ]] ||
      continue
    if ! [ -e "$BEFORE/files/$path" ] && ! [ -L "$BEFORE/files/$path" ]; then
      rm -f "$ROOT/$path" || return
    else
      cp -a --remove-destination --target-directory "$STAGING/back" "$BEFORE/files/$path" &&
        place "$ROOT/${path%/*}" "$STAGING/back/${path##*/}" || return
    fi
  done <"$BEFORE/paths"
}

# Removes the copy of the old state, keys included. What is there now is on the disk by then, also
# after a power cut, and a copy that is removed by half is none.
forget() {
  local file
  if [ -e "$BEFORE/complete" ]; then
    changed_paths | xargs -0 sync
    rm -f "$BEFORE/complete"
  fi
  for file in "$BEFORE/files${CERTS#"$ROOT"}/key.pem" "$BEFORE/files${TOKEN_FILE#"$ROOT"}"; do
    shred_file "$file"
  done
  rm -rf "$BEFORE" "$STAGING"
}

# Does for a join that was killed what it does where it fails.
undo_killed_join() {
  if [ ! -e "$BEFORE/stopped" ]; then
    restore_files prepared && forget
    return
  fi
  stop_agent
  restore_files stopped || return
  systemctl daemon-reload
  if [ -e "$BEFORE/active" ]; then timeout "$STOP_TIMEOUT_S" systemctl restart "$UNIT" || return; fi
  systemctl try-restart "$UNIT-redirect" 2>/dev/null
  forget
}

agent_runs() {
  systemctl is-active --quiet "$UNIT"
}

# It runs, or is to run: an agent that ends at once is started again and again.
agent_is_up() {
  [[ $(systemctl show --property=ActiveState --value "$UNIT" 2>/dev/null) =~ ^(active|.*ing)$ ]]
}

stop_agent() {
  timeout $((STOP_TIMEOUT_S + $(stop_s))) systemctl stop "$UNIT"
}

# Prints how many seconds more than by default the agent that is here needs to stop. withdraw.sh
# waits for istiod's grace period, and the agent drains.
stop_s() {
  as_unit "$ROOT" more_than_by_default
}

more_than_by_default() {
  echo $((${DISCONNECT_GRACE_S:-10} - 10 + ${DRAIN_S:-5} - 5))
}

# Runs a command with the environment of the agent, as the units do.
as_unit() ( # directory that the join's files are below, command
  set -a +eu
  for file in "$1${STATE#"$ROOT"}"/{cluster,overrides}.env; do
    # shellcheck disable=SC1090 # written by the join
    if [ -r "$file" ]; then . "$file"; fi
  done
  unset BASH_ENV CDPATH
  "${@:2}"
)

# The unit removes the rules when it stops. A unit that was killed or replaced did not.
remove_rules() {
  [ ! -e "$PROGRAMS/scripts/redirect.sh" ] ||
    as_unit "$ROOT" bash "$PROGRAMS/scripts/redirect.sh" off
}

# Prints the files of this host in which rules of the redirection are saved.
saved_rules() {
  [ ! -e "$PROGRAMS/scripts/redirect.sh" ] ||
    bash "$PROGRAMS/scripts/redirect.sh" saved 2>/dev/null 3<&- 9<&-
}

# Either backend may have rules, whichever `iptables` is now. Chains of istio-cni have other names.
has_rules() {
  {
    for program in ip{,6}tables{,-legacy,-nft}-save; do "$program"; done
    nft list ruleset
  } 2>/dev/null |
    grep -qE -e '[: ]ISTIO_(INBOUND|IN_REDIRECT|OUTPUT|OUTPUT_DNS|REDIRECT)( |$)' \
      -e 'comment "?istio-vm-mesh"?( |$)'
}

# Prints the paths below UNITS that joins wrote, by the names of this version and by the lists of
# joins, which may be missing. What an administrator wrote there under a similar name stays.
unit_paths() {
  local path units=${UNITS#"$ROOT"/}/$UNIT
  {
    printf '%s\n' "$units"{,-redirect,-undo,-drain}.service "$units.service.d"/{sidecar,drain}.conf
    cat "$STATE/files" "$BEFORE/paths" 2>/dev/null
  } | sort -u | while read -r path; do
    [[ $ROOT/$path != "$UNITS/$UNIT"* ]] || printf '%s\n' "$ROOT/$path"
  done
}

remove_units() {
  local path unit
  while read -r path; do
    unit=${path##*/}
    if [ "${path%/*}" = "$UNITS" ]; then
      { [ ! -e "$path" ] && [ ! -L "$path" ]; } || [ "$unit" = "$KEPT_UNIT" ] ||
        timeout "$STOP_TIMEOUT_S" systemctl disable --now --quiet "$unit" 2>/dev/null
      rm -f "$UNITS"/*.wants/"$unit"
    fi
    rm -f "$path" "$path.istio-vm-mesh"
  done < <(unit_paths)
  rmdir "$UNITS/$UNIT.service.d" 2>/dev/null
  systemctl daemon-reload
  systemctl reset-failed "$UNIT" 2>/dev/null
}

# A user with this home directory is one that a join created.
remove_user() {
  local program=userdel reason
  [ "$(getent passwd istio-proxy | cut -d : -f 6)" = "$STATE" ] || return 0
  command -v userdel >/dev/null || program=deluser
  reason=$($program istio-proxy 2>&1) || {
    echo "the user istio-proxy is left: $reason"
    return 1
  }
  if getent group istio-proxy >/dev/null; then groupdel istio-proxy; fi >/dev/null 2>&1
}

# Removes all that a join brought: the agent and its rules, keys, files, units, programs, and the
# user if a join created it. The stamp goes last, so that the next run finishes one that was cut
# short. A part that is missing is no error. Prints why it failed.
remove_installation() {
  local file
  # There is nothing to wait for: the machine's entry is not of use any more.
  rm -f "$PROGRAMS/scripts/withdraw.sh"
  timeout "$STOP_TIMEOUT_S" systemctl disable --now --quiet "$UNIT" 2>/dev/null
  timeout "$STOP_TIMEOUT_S" systemctl stop "$UNIT" 2>/dev/null # also without its file
  remove_rules >/dev/null 2>&1
  for file in "$CERTS"/*.pem "$TOKEN_FILE" "$STATE/before/files${CERTS#"$ROOT"}"/*.pem \
    "$STATE/before/files${TOKEN_FILE#"$ROOT"}"; do
    shred_file "$file"
  done
  remove_units
  if has_rules; then
    echo "rules of the redirection are left: see 'iptables-save', 'iptables-legacy-save' and" \
      "'nft list ruleset'"
    return 1
  fi
  remove_user || return
  rm -rf "$PROGRAMS" "$RUN/$UNIT"-{withdrawn,rejected,redirect,redirect.lock,probe.env,firewalld} \
    "$RUN/$UNIT"-looks.*
  find "$STATE" -mindepth 1 -maxdepth 1 ! -name owner -exec rm -rf {} +
  rm -rf "$STATE"
  if [ -e "$STATE" ] || [ -e "$PROGRAMS" ]; then
    echo "$STATE or $PROGRAMS cannot be removed: is it a mount point, or read-only?"
    return 1
  fi
}
