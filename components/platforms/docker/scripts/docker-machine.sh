# Makes a container that is a machine: systemd, sshd, an address that stays, a host key made here and pinned. One of that name that a
# killed run left behind is made again. Prints `id=`, `address=` and `hostKey=`.
# Variables: NAME, HOSTNAME_OF_MACHINE, IMAGE, NETWORK, SECOND_NETWORK (or ""), FIRST, LAST (addresses to take from), LABEL, PUBLIC_KEY, ROUTES (`range via address`, one a line), SSH_USER.
set -eu
umask 077
number() { IFS=. read -r a b c d <<<"$1" && echo $(((a << 24) + (b << 16) + (c << 8) + d)); }
address() { echo "$(($1 >> 24 & 255)).$(($1 >> 16 & 255)).$(($1 >> 8 & 255)).$(($1 & 255))"; }

files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
docker rm --force --volumes "$NAME" >/dev/null 2>&1 || true
docker image inspect "$IMAGE" >/dev/null 2>&1 || docker pull --quiet "$IMAGE" >/dev/null

mkdir -p "$files/etc/ssh" "$files/etc/systemd/system/multi-user.target.wants" "$files/home/$SSH_USER/.ssh"
ssh-keygen -q -t ed25519 -N '' -C "$NAME" -f "$files/etc/ssh/ssh_host_ed25519_key"
echo "$PUBLIC_KEY" >"$files/home/$SSH_USER/.ssh/authorized_keys"
# What a cloud's router does for its machines: the way to the pods leads through the cluster's node.
{
  printf '[Unit]\nDescription=Routes of the network\nBefore=network-online.target ssh.service\nWants=network-online.target\n'
  printf '[Service]\nType=oneshot\nRemainAfterExit=yes\n'
  while read -r route; do [ -z "$route" ] || printf 'ExecStart=/sbin/ip route replace %s\n' "$route"; done <<<"$ROUTES"
  printf 'ExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n'
} >"$files/etc/systemd/system/routes.service"
ln -s /etc/systemd/system/routes.service "$files/etc/systemd/system/multi-user.target.wants/routes.service"
chmod 755 "$files" "$files/etc" "$files/etc/ssh" "$files/etc/systemd" "$files/etc/systemd/system" "$files/etc/systemd/system/multi-user.target.wants" "$files/home"
chmod 644 "$files/etc/systemd/system/routes.service"

# Several machines may be made at once: each begins with an address that follows from its name, and tries one that another took meanwhile no more.
first=$(number "$FIRST") count=$(($(number "$LAST") - $(number "$FIRST") + 1)) tried=0
offset=$(($(cksum <<<"$NAME" | cut -d ' ' -f 1) % count))
while :; do
  taken=$(docker network inspect --format '{{range .Containers}}{{.IPv4Address}} {{end}}' "$NETWORK")
  while ip=$(address $((first + (offset + tried) % count))) && [ $tried -lt $count ] && [[ " $taken" == *" $ip/"* ]]; do tried=$((tried + 1)); done
  if [ $tried -ge $count ]; then
    echo "machine $HOSTNAME_OF_MACHINE: no address is free from $FIRST to $LAST in the Docker network $NETWORK" >&2
    exit 1
  fi
  docker create --name "$NAME" --hostname "$HOSTNAME_OF_MACHINE" --label "$LABEL" --privileged --network "$NETWORK" --ip "$ip" \
    --add-host host.docker.internal:host-gateway --tmpfs /run --tmpfs /run/lock --tmpfs /tmp --stop-signal SIGRTMIN+3 "$IMAGE" /sbin/init >/dev/null
  [ -z "$SECOND_NETWORK" ] || docker network connect "$SECOND_NETWORK" "$NAME"
  tar --create --directory "$files" --owner=0 --group=0 etc | docker cp - "$NAME:/"
  user_id=$(docker cp "$NAME:/etc/passwd" - | tar --extract --to-stdout | sed -n "s/^$SSH_USER:[^:]*:\([0-9]*\):.*/\1/p")
  tar --create --directory "$files" --owner="$user_id" --group="$user_id" home/"$SSH_USER"/.ssh | docker cp - "$NAME:/"
  if error=$(docker start "$NAME" 2>&1); then break; fi
  docker rm --force --volumes "$NAME" >/dev/null
  if [[ $error != *"ddress already in use"* ]]; then
    echo "machine $HOSTNAME_OF_MACHINE: Docker cannot start it: $error" >&2
    exit 1
  fi
  tried=$((tried + 1))
done
echo "id=$(docker inspect --format '{{.Id}}' "$NAME")"
echo "address=$ip"
echo "hostKey=$(cut -d ' ' -f 1,2 "$files/etc/ssh/ssh_host_ed25519_key.pub")"
