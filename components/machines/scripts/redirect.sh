# The unit runs this around the agent, as root and with the agent's environment. The agent fails
# every DNS query until it has the name table from istiod. Until then DNS queries bypass the agent,
# so a machine that boots while istiod is down still resolves names.
# `redirect.sh on`, before the agent: Istio's redirection rules, and rules by which DNS bypasses it.
# `redirect.sh dns-on`, after its start: ends the bypass, in the background, once it has the table.
# `redirect.sh off`, before the start and after the end: removes all rules of Istio.
DNS_BYPASSED=/run/istio-vm-mesh-dns-bypassed

# Prints the iptables backends that contain Istio rules. `istio-iptables` picks a backend on every
# run, by what else is installed, and looks for its rules only there.
backends() {
  local backend
  for backend in legacy nft; do
    if {
      iptables-$backend-save
      ip6tables-$backend-save
    } 2>/dev/null | grep -q ISTIO_; then
      echo $backend
    fi
  done
}

# Inserts (-I) or deletes (-D) the rules by which DNS queries bypass the agent: those in front of
# the redirection, and those in front of the conntrack zones that keep its queries apart.
bypass_dns() { # -I or -D
  local backend iptables
  for backend in $(backends); do
    for iptables in iptables ip6tables; do
      $iptables-"$backend"-restore --noflush 2>/dev/null <<END
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
  done # an address family without a resolver has no such chains
}

redirect_on() {
  rm -f /run/istio-vm-mesh-withdrawn
  pilot-agent istio-iptables || exit
  touch "$DNS_BYPASSED"
  bypass_dns -I
}

redirect_dns() {
  local delay=0.1
  until curl --silent --fail --max-time 2 --output /dev/null "http://127.0.0.1:15020/debug/ndsz"; do
    sleep $delay
    [ $SECONDS -lt 60 ] || delay=1
  done
  bypass_dns -D
  rm -f "$DNS_BYPASSED"
}

redirect_off() {
  local backend
  for backend in $(backends); do
    pilot-agent istio-iptables --cleanup-only --force-iptables-binary "$backend"
  done
  rm -f "$DNS_BYPASSED"
}

main() { # on, dns-on or off
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
  case $1 in
  on) redirect_on ;;
  dns-on) redirect_dns & ;;
  off) redirect_off ;;
  esac
  exit 0
}

if ! (return 0 2>/dev/null); then main "$@" </dev/null; fi
