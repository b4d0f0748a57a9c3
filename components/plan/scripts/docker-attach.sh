# Puts a cluster's node into a Docker network and drops what would pass between that network and the pods. Prints the node's address there.
# Variables: NODE, NETWORK, PODS and RANGE (address ranges).
set -eu
address() { docker inspect --format "{{with (index .NetworkSettings.Networks \"$NETWORK\")}}{{.IPAddress}}{{end}}" "$NODE"; }
[ -n "$(address)" ] || docker network connect "$NETWORK" "$NODE"
for rule in "-s $PODS -d $RANGE" "-s $RANGE -d $PODS"; do
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
