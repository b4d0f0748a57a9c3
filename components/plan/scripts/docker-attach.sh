# Puts a cluster's node into a Docker network and drops what would pass between that network and the pods. Prints the node's address there.
# Variables: NODE, NETWORK, PODS and RANGE (address ranges).
set -eu
address() { docker inspect --format "{{with (index .NetworkSettings.Networks \"$NETWORK\")}}{{.IPAddress}}{{end}}" "$NODE"; }
[ -n "$(address)" ] || docker network connect "$NETWORK" "$NODE"
for rule in "-s $PODS -d $RANGE" "-s $RANGE -d $PODS"; do
  # shellcheck disable=SC2086
  docker exec "$NODE" sh -c "iptables -C FORWARD $rule -j DROP 2>/dev/null || iptables -I FORWARD 1 $rule -j DROP"
done
address
