# Run by the unit around the agent, with the agent's environment. The agent answers no name, ordinary ones neither, until istiod has told it the mesh's;
# so until then names go past it, and a machine that starts while istiod is away still resolves.
# `capture.sh traffic`, before: Istio's own redirection rules, and rules in their chains by which names go past.
# `capture.sh names`, after: takes these back, in the background, once the agent has the mesh's names.
# `capture.sh nothing`, when it has stopped: takes all of it away.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
past=/run/istio-vm-mesh-names-past

# Which backends of iptables have rules of Istio. It takes one by what else is on the machine, and looks for its own only in the one that it would take now.
backends() {
  for each in legacy nft; do
    case $({ iptables-$each-save; ip6tables-$each-save; } 2>/dev/null) in *ISTIO_*) echo $each ;; esac
  done
}

# The redirection to the agent, and the zones that tell its questions from those of applications.
names_past() { # -I or -D
  for each in $(backends); do
    for iptables in iptables ip6tables; do
      $iptables-"$each"-restore --noflush 2>/dev/null <<END
*nat
$1 ISTIO_OUTPUT -p udp --dport 53 -j RETURN
$1 ISTIO_OUTPUT -p tcp --dport 53 -j RETURN
COMMIT
*raw
$1 ISTIO_OUTPUT_DNS -p udp --dport 53 -j RETURN
$1 ISTIO_INBOUND -p udp --sport 53 -j RETURN
COMMIT
END
    done
  done # a family without a resolver has no such chains
}

nothing() {
  for each in $(backends); do
    pilot-agent istio-iptables --cleanup-only --force-iptables-binary "$each"
  done
  rm -f $past
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

case $1 in
traffic)
  rm -f /run/istio-vm-mesh-left
  nothing
  pilot-agent istio-iptables || exit
  touch $past
  names_past -I
  ;;
names) names & ;;
nothing) nothing ;;
esac
exit 0
