# Takes back a join that ended without being confirmed: killed with its connection or its session,
# hung, or cut off by a reboot. The unit istio-vm-mesh-undo runs it, from before the redirection is
# on, and with the agent at a boot. It waits for the lock, which the join holds as long as it lives.
# A join that ended by itself has completed, or has brought back what was there: nothing is left to
# do then. lib.sh and installation.sh stand before this text.

# Ends a join that has had all its time. The number may be another process's by now.
end_join() {
  local pid
  pid=$(value_of pid "$BEFORE/armed")
  [ "/proc/$pid/fd/9" -ef "$RUN/istio-vm-mesh.lock" ] || return
  kill -KILL "$pid"
  flock --timeout 60 9
}

undo() {
  if [ -e "$BEFORE/fresh" ]; then remove_installation; else undo_killed_join; fi
}

# shellcheck disable=SC2034 # installation.sh reads them
main() {
  local limit_s
  set -u
  clean_environment
  umask 022
  MACHINE=$(pending_stamp machine)
  STOP_TIMEOUT_S=150 # withdraw.sh included
  KEPT_UNIT=$UNIT-undo.service
  exec 9<>"$RUN/istio-vm-mesh.lock"
  limit_s=$(value_of limit_s "$BEFORE/armed")
  flock ${limit_s:+--timeout "$limit_s"} 9 || end_join ||
    fail "a join or a leave has run for more than $limit_s s: $(cat "$RUN/istio-vm-mesh.lock")"
  if [ ! -e "$BEFORE/complete" ] || [ ! -e "$BEFORE/armed" ]; then exit 0; fi
  echo "what takes the join of $MACHINE back (process $$, since $(date -u))" \
    >"$RUN/istio-vm-mesh.lock"
  undo || fail "an unconfirmed join could not be taken back: run the update again"
  echo "machine $MACHINE: took back a join that nothing confirmed"
  exit 0
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
