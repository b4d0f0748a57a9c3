# Takes this machine out of the mesh and removes what the join brought. A certificate stays valid
# after its ServiceAccount is gone, so the key must go. Only who joined the machine may do it, by
# its stamp. A join of this stack that was killed over one of another is undone. The last line of
# the output is `left`, `not-joined`, or `not-ours <project>/<stack> <machine>`. A second run
# changes nothing. It sends a request before it removes anything: the machine's entry is deleted
# then, so clients have stopped to call the machine. installation.sh stands before this text.
# Variables: MACHINE, PROJECT, STACK, REGISTRATION, ASK.
is_ours() { # stamp, or pending_stamp
  if ! is_stamped; then
    is_labelled
    return
  fi
  [ "$($1 project)/$($1 stack) $($1 machine) $($1 registration)" = \
    "$PROJECT/$STACK $MACHINE $REGISTRATION" ]
}

# What stays on a file system that is read-only would start with the next boot, without its stamp.
check_removable() {
  local directory
  for directory in "$UNITS" "$PROGRAMS" "$STATE"; do
    [ ! -d "$directory" ] || [ -w "$directory" ] ||
      fail "cannot remove anything from $directory: let root write there"
  done
}

main() {
  local reason saved
  set -u
  clean_environment
  umask 022
  [ "$(id -u)" = 0 ] ||
    fail "leaving the mesh needs root: let the SSH user run sudo without a password"
  if ! is_stamped && ! is_labelled; then
    # One that stays would register the machine again.
    require_no_agent "$UNITS/$UNIT.service"
    echo not-joined
    exit 0
  fi
  take_lock leave
  if ! is_ours stamp; then
    if was_killed && is_ours pending_stamp; then
      undo_killed_join >/dev/null 2>&1 ||
        fail "a join of this stack was interrupted here, and what was there before could not be" \
          "brought back: run the update again"
    fi
    echo "not-ours $(stamp project)/$(stamp stack) $(stamp machine)"
    exit 0
  fi
  check_removable
  ask leave
  saved=$(saved_rules)
  # Not by half: a connection that ends is no reason to stop here.
  trap '' HUP PIPE
  reason=$(remove_installation) || fail "$reason; remove the cause, and run the update again"
  rm -f "$RUN/istio-vm-mesh.lock"
  # Files of others are not edited.
  [ -z "$saved" ] ||
    echo "machine $MACHINE has left, but rules of the redirection are saved in" \
      "$(paste -sd ' ' <<<"$saved"). With its next boot nothing would answer what they redirect:" \
      "save the rules again ('netfilter-persistent save', 'service iptables save')," \
      "or delete what names ISTIO_ or istio-vm-mesh there" >&2
  echo left
}

if ! (return 0 2>/dev/null); then main 3<&0 </dev/null; fi
