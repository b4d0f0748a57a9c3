# How a join shows that SSH still reaches its machine once the redirection is on, and what takes the
# join back otherwise. It stands between installation.sh and join.sh. Variables: CONFIRM_S (seconds,
# or "" for a join that is not confirmed) and DEADLINE_S.

# From here on the unit takes the join back at a reboot: it starts with the agent.
arm() {
  [ -n "$CONFIRM_S" ] || return 0
  : >"$BEFORE/armed"
  sync "$BEFORE/armed" "$BEFORE"
}

# Starts what takes the join back if this process ends otherwise, or not in time. It is systemd's:
# it outlives the connection, the session and the computer that runs Pulumi.
start_timer() {
  [ -n "$CONFIRM_S" ] || return 0
  printf '%s\n' "pid=$$" "limit_s=$((CONFIRM_S + $(share 40) + $(stop_s)))" >"$BEFORE/armed"
  changed_paths | xargs -0 sync "$BEFORE/armed" # the unit has to be there after a power cut
  restart_within 10 "$UNIT-undo" ||
    fail "the unit $UNIT-undo, which takes back a join that locks SSH out, does not start:" \
      "see 'journalctl --unit $UNIT-undo' on it"
}

# The computer that runs Pulumi opens a second connection, by which confirm.sh removes the file.
# Where nothing keeps the machine out any more (LET_IN) the end of this connection ends no join.
# shellcheck disable=SC2034 # join.sh reads them
confirm() {
  [ -n "$CONFIRM_S" ] || return 0
  local file
  file=unconfirmed.$$.$(date +%s)
  : >"$BEFORE/$file"
  # The agent of before must not come back where the cluster would let it in.
  if [ -n "$LET_IN" ]; then
    WAS_ACTIVE='' WAS_READY=''
    rm -f "$BEFORE/active"
  fi
  ASK=$CONFIRM_S GOES_ON=$LET_IN ask confirm "${file#*.}"
  [ ! -e "$BEFORE/$file" ] ||
    fail "no second SSH connection came to this machine within $CONFIRM_S s of the redirection"
}
