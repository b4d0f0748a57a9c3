# Puts a cluster's node into a Docker network and drops what would pass between that network and the pods directly. Prints the node's address there.
# Variables: NODE, NETWORK, PODS and RANGE (address ranges).
set -eu
address() { docker inspect --format "{{with (index .NetworkSettings.Networks \"$NETWORK\")}}{{.IPAddress}}{{end}}" "$NODE"; }
[ -n "$(address)" ] || docker network connect "$NETWORK" "$NODE"
# What was sent to the gateway's address is translated to a pod's on its way through here, and passes.
for rule in "-s $PODS -d $RANGE -m conntrack ! --ctstate DNAT" "-s $RANGE -d $PODS -m conntrack ! --ctstate DNAT"; do
  # shellcheck disable=SC2086
  docker exec "$NODE" sh -c "iptables -C FORWARD $rule -j DROP 2>/dev/null || iptables -I FORWARD 1 $rule -j DROP"
done
# Docker publishes the node's ports anew with each network.
port=$(docker port "$NODE" 6443/tcp | head -n 1)
for _ in $(seq 100); do
  if timeout 2 bash -c "exec 3<>/dev/tcp/${port%:*}/${port##*:}" 2>/dev/null; then break; fi
  sleep 0.1
done
address
