# Has a machine leave the mesh, over SSH. A machine that cannot be reached does not stand in the way of its removal.
# Variables: MACHINE, HOST, PORT, SSH_USER, COMMAND (what runs the script there), KNOWN_HOSTS (lines, or "" to accept any host key), KEY_BASE64,
# BASTION (`user@host`, or ""), BASTION_PORT, LEAVE_BASE64.
(
  umask 077
  directory=$(mktemp -d)
  trap 'rm -rf "$directory"' EXIT
  printf %s "$KEY_BASE64" | base64 -d >"$directory/key"
  printf '%s\n' "$KNOWN_HOSTS" >"$directory/known_hosts"
  if [ -n "$KNOWN_HOSTS" ]; then check=yes; else check=no; fi
  options="-F none -i $directory/key -o IdentitiesOnly=yes -o IdentityAgent=none -o UserKnownHostsFile=$directory/known_hosts
    -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=$check -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o LogLevel=ERROR"
  way=()
  # shellcheck disable=SC2086
  if [ -n "$BASTION" ]; then way=(-o "ProxyCommand=ssh ${options//$'\n'/} -p $BASTION_PORT -W %h:%p $BASTION"); fi
  # shellcheck disable=SC2086
  printf %s "$LEAVE_BASE64" | base64 -d | timeout 150 ssh $options "${way[@]}" -p "$PORT" "$SSH_USER@$HOST" "$COMMAND"
  status=$?
  case $status in
  0) ;;
  124 | 255)
    echo "machine $MACHINE was not reached at $HOST port $PORT, so it did not leave by itself: if it still exists, its agent runs and its key is good" \
      "for as long as its certificate" >&2
    ;;
  *)
    echo "machine $MACHINE did not leave the mesh (status $status): see above" >&2
    exit 1
    ;;
  esac
) || exit 1
