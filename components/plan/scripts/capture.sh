# Run by the unit around the agent's start, with the agent's environment. The agent answers no name, ordinary ones neither, until istiod has told it
# the mesh's; so until then names go past it, and a machine that starts while istiod is away still resolves.
# `capture.sh traffic`, before: Istio's own redirection rules, and rules in their chains by which names go past.
# `capture.sh names`, after: takes these back, in the background, once the agent has the mesh's names.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
past=/run/istio-vm-mesh-names-past

# The backends that have rules of Istio; which one it takes depends on what else is on the machine.
backends() {
  for each in iptables-legacy iptables-nft ip6tables-legacy ip6tables-nft; do
    case $($each-save 2>/dev/null) in *ISTIO_*) echo $each ;; esac
  done
}

# The redirection to the agent, and the zones that tell its questions from those of applications.
names_past() { # -I or -D
  for each in $(backends); do
    $each-restore --noflush 2>/dev/null <<END
*nat
$1 ISTIO_OUTPUT -p udp --dport 53 -j RETURN
$1 ISTIO_OUTPUT -p tcp --dport 53 -j RETURN
COMMIT
*raw
$1 ISTIO_OUTPUT_DNS -p udp --dport 53 -j RETURN
$1 ISTIO_INBOUND -p udp --sport 53 -j RETURN
COMMIT
END
  done # a family without a resolver has no such chains
}

names() {
  delay=0.1
  until curl --silent --fail --max-time 2 --output /dev/null http://127.0.0.1:15020/debug/ndsz; do
    sleep $delay
    [ $SECONDS -lt 60 ] || delay=1
  done
  names_past -D
  rm -f $past
}

if [ "$1" = names ]; then
  names &
else
  rm -f /run/istio-vm-mesh-left
  [ -z "$(backends)" ] || pilot-agent istio-iptables --cleanup-only
  pilot-agent istio-iptables || exit
  touch $past
  names_past -I
fi
exit 0
