# Confirms, by an SSH connection of its own, the join that waits on this machine for it. It is late
# where that join was taken back. The last line of the output is `confirmed`. installation.sh stands
# before this text. Variables: MACHINE, NONCE (of the question).
main() {
  set -u
  clean_environment
  rm "$BEFORE/unconfirmed.$NONCE" 2>/dev/null ||
    fail "no join waits here for this connection: it came too late, and the join was taken back," \
      "or this host is not the one that the first connection reached"
  echo confirmed
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
