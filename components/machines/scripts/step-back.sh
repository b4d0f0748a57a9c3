# Run by the unit before it stops the agent: takes this machine out of everybody's endpoints while it still answers, so that no call is lost.
# istiod removes the entry GRACE seconds after the agent's connection has ended; so that one ends first, and no other is made.
# `step-back.sh again` lets the agent connect again. Variable: GRACE.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
left=/run/istio-vm-mesh-left
# New connections alone: the ends of the old ones must get out.
to_istiod=(OUTPUT --protocol tcp --syn --dport 15012 --match owner --uid-owner istio-proxy --jump REJECT --reject-with tcp-reset)
connected() { [ -n "$(ss --no-header --tcp --numeric state established dport = 15012)" ]; }

if [ "${1:-}" = again ]; then
  while iptables --wait --delete "${to_istiod[@]}" 2>/dev/null; do :; done
  exit 0
fi
rm -f $left
# An Envoy that is gone answers nobody.
pgrep -x envoy >/dev/null || exit 0
iptables --wait --insert "${to_istiod[@]}" || exit 0
for _ in $(seq 20); do
  ss --kill --tcp dport = 15012 >/dev/null
  connected || break
  sleep 0.1
done
# A kernel without INET_DIAG_DESTROY does not end connections: then the agent's own drain must do.
if connected; then
  echo "cannot end the connection to istiod before the agent stops: calls may be lost" >&2
  exit 0
fi
date +%s >$left
sleep $((GRACE + 1))
