# Takes this machine out of the mesh and removes what the join brought. A certificate stays valid
# after its ServiceAccount is gone, so the key must go. Only who joined the machine may do it, by
# its stamp. The last line of the output is `left`, `not-joined`, or
# `not-ours <project>/<stack> <machine>`. A second run changes nothing. It asks before it changes
# anything: the machine's entry is deleted then, so clients have stopped to call the machine.
# installation.sh stands before this text.
# Variables: MACHINE, PROJECT, STACK, REGISTRATION, ASK.
main() {
  local owner reason
  set -u
  clean_environment
  umask 022
  [ "$(id -u)" = 0 ] ||
    fail "leaving the mesh needs root: let the SSH user run sudo without a password"
  if [ ! -e "$STATE/owner" ]; then
    echo not-joined
    exit 0
  fi
  take_lock leave
  owner="$(stamp project)/$(stamp stack) $(stamp machine) $(stamp registration)"
  if [ "$owner" != "$PROJECT/$STACK $MACHINE $REGISTRATION" ]; then
    echo "not-ours $(stamp project)/$(stamp stack) $(stamp machine)"
    exit 0
  fi
  ask leave
  # Not by half: a connection that ends is no reason to stop here.
  trap '' HUP PIPE
  reason=$(remove_installation) || fail "$reason; remove the cause, and run the update again"
  rm -f "$RUN/istio-vm-mesh.lock"
  echo left
}

if ! (return 0 2>/dev/null); then main 3<&0 </dev/null; fi
