# What the redirection meets on this host. A join runs it as root, with the environment of the agent
# that it brings, before it changes anything. redirect.sh is beside it.
# `redirect_host.sh refusals`: prints why calls would not reach the application, one a line.
# `redirect_host.sh changes`: prints what the redirection is about to change, one a line.
# INSTANCE_IP is the address by which pods reach the machine.

# Prints the port, the address and the program of each listening socket. A socket of all addresses
# has 0.0.0.0, and one of all addresses of IPv6 alone has `::`. One that takes connections of an
# interface alone has `<address>%<interface>`. Java has addresses of IPv4 as those of IPv6.
listeners() {
  ss --no-header --tcp --listening --numeric --processes --extended 2>/dev/null | awk '{
    port = $4; sub(/.*:/, "", port)
    address = substr($4, 1, length($4) - length(port) - 1)
    gsub(/[][]/, "", address); sub(/%lo$/, "", address); sub(/^::ffff:/, "", address)
    if (address == "*" || (address == "::" && $0 !~ /v6only:1/)) address = "0.0.0.0"
    program = match($0, /\(\("[^"]+"/) ? substr($0, RSTART + 3, RLENGTH - 4) : "-"
    print port, address, program
  }' | sort -u
}

# Prints the ports, the kind and the target of each rule that gives connections another address, as
# rules of containers with published ports do. Those behind the rules of the mesh are of the kind
# `iptables`. Others have the table of nftables, or the other backend's program: these follow no
# order that iptables knows. A rule by which connections are not tracked has the target `untracked`.
rules_of_ports() {
  local program kind text shown=';' used=${FORCE_IPTABLES_BINARY:-$(backend)}
  {
    for program in $(programs); do
      text=$(read_rules "$program" 2>/dev/null)
      kind=iptables
      [ -z "$used" ] || [[ $program != *-* || $program == *-$used ]] || kind=$program
      awk -v kind="$kind" "$OURS"'
        $2 == "KUBE-NODEPORTS" { sub(/-j KUBE-.*/, "-j DNAT --to-destination kube-proxy") }
        $1 ~ /^(nat|raw)$/ && !is_chain($2) { sub(/^[^ ]+ [^ ]+ /, ""); print kind, $0 }
        ' <<<"$text"
      [[ $program == *-legacy ]] || shown+=$(
        sed -n "s#^\([a-z]*\) :#$(nft_family "$program")/\1 #p" <<<"$text" | paste -sd ';'
      )';'
    done
    nft list ruleset 2>/dev/null | awk -v shown="$shown" '
      /^table / { table = $2 "/" $3 }
      /^\tchain / { chain = $2 }
      !index(shown, ";" table " " chain ";") { print table, $0 }'
  } | awk '
    {
      kind = $1; sub(/^[^ ]+[ \t]+/, ""); target = "-"
      if ($0 ~ /(^| )udp /) next
      if (/-j (NOTRACK|CT .*--notrack)|(^| )notrack( |$)/) target = "untracked"
      else if ($0 !~ /-j (DNAT|REDIRECT)|(^| )(dnat|redirect)( |$)/) next
      ports = ""
      if (match($0, /dports? [0-9:,]+/)) ports = substr($0, RSTART, RLENGTH)
      else if (match($0, /dport \{[^}]*\}/)) ports = substr($0, RSTART, RLENGTH)
      else if (match($0, /dport [0-9-]+/)) ports = substr($0, RSTART, RLENGTH)
      if (ports == "") next
      sub(/^dports? /, "", ports); gsub(/[{} ]/, "", ports); gsub(/:/, "-", ports)
      if (match($0, /(--to-destination|--to-ports|dnat (ip6? )?to|redirect to) [^ ]+/)) {
        target = substr($0, RSTART, RLENGTH); sub(/.* /, "", target)
      }
      print ports, kind, target
    }' | sort -u
}

# Prints the lines of rules_of_ports that a port is in.
rules_of() { # port
  awk -v port="$1" '{
    count = split($1, parts, ",")
    for (i = 1; i <= count; i++) {
      last = split(parts[i], ends, "-")
      if (ends[1] <= port + 0 && port + 0 <= ends[last]) { print; next }
    }
  }'
}

is_loopback() { # addresses
  ! grep -qvE '^(127\.|::1$)' <<<"$1"
}

# Prints why connections to a port would not reach the application. A port that nothing listens on
# is one whose application is still to come.
port_refusals() { # port, listeners, rules of ports, open ports
  local by_rules native addresses names any=0.0.0.0
  [[ $INSTANCE_IP != *:* ]] || any=::
  by_rules=$(rules_of "$1" <<<"$3" | grep -v ' untracked$')
  native=$(awk 'NF && $2 != "iptables" {
    print ($2 ~ /\// ? "nftables (table " $2 ")" : $2); exit }' <<<"$by_rules")
  addresses=$(awk -v port="$1" '$1 == port { print $2 }' <<<"$2" | sort -u)
  names=$(awk -v port="$1" '$1 == port { print $3 }' <<<"$2" | sort -u | paste -sd ' ')
  if [[ ,$4, == *,$1,* ]]; then
    echo "port $1 of the workload is one of SSH here, which is never captured: let sshd listen on" \
      "another port, or the application"
  elif [ -n "$native" ]; then
    echo "port $1 of the workload is published by $native, whose rules may come" \
      "before those of the mesh: run the container in the host's network (--network host)"
  elif [ -n "$by_rules" ] && { [ -z "$addresses" ] || [ "$names" = conmon ]; }; then
    echo "port $1 of the workload is published to $(awk '{ print $3; exit }' <<<"$by_rules") by" \
      "rules alone, and Envoy's own connections do not follow these: switch on Docker's" \
      "userland-proxy, or run the container in the host's network (--network host)"
  elif [ -z "$addresses" ] || grep -qxF -e 0.0.0.0 -e "$INSTANCE_IP" -e "$any" <<<"$addresses"; then
    :
  elif ! grep -qv % <<<"$addresses"; then
    echo "port $1 of the workload: $names takes connections of the interface" \
      "$(cut -d % -f 2 <<<"$addresses" | paste -sd ' ') alone, and those of Envoy come by lo: let" \
      "it listen on an address instead"
  elif is_loopback "$addresses"; then
    echo "port $1 of the workload: $names listens on $(paste -sd ' ' <<<"$addresses") alone, and" \
      "Envoy connects to the machine's address: let it listen on 0.0.0.0 or $INSTANCE_IP"
  elif ! is_local "$INSTANCE_IP"; then
    echo "port $1 of the workload: $names listens on $(paste -sd ' ' <<<"$addresses") alone, and" \
      "the machine's address $INSTANCE_IP is on none of its interfaces, so the agent calls its" \
      "probe at localhost: let it listen on 0.0.0.0, or set the machine's address"
  else
    echo "port $1 of the workload: $names listens on $(paste -sd ' ' <<<"$addresses") alone, and" \
      "pods reach the machine at $INSTANCE_IP: let it listen on 0.0.0.0 or $INSTANCE_IP"
  fi
}

refusals() {
  local port listening rules open name
  listening=$(listeners)
  rules=$(rules_of_ports)
  open=$(open_ports)
  for port in $(workload_ports); do
    port_refusals "$port" "$listening" "$rules" "$open"
    ! rules_of "$port" <<<"$rules" | grep -q ' untracked$' ||
      echo "port $port of the workload is not tracked, by a rule of this host (notrack), and what" \
        "is not tracked is not redirected: delete the rule"
  done
  for name in $(bare_interfaces); do
    echo "$name, by which connections come, has no address of its own, and Linux redirects none" \
      "there: add the machine's address to it, too"
  done
  if has_ipv6 && ! can_redirect_ipv6; then
    echo "this machine has addresses of IPv6, which ip6tables cannot redirect" \
      "('ip6tables -t nat -S' fails): load the module ip6table_nat, or disable IPv6"
  fi
}

# Prints the interfaces without an address by which connections come to an address of lo or of a
# dummy interface. A redirected connection gets an address of the interface that it comes by.
bare_interfaces() {
  local version=4 name
  [ "$(family)" = ip ] || version=6
  [[ $(pod_interface) =~ ^(lo|dummy.*)$ ]] || return 0
  ip -o -$version route show default | grep -oE 'dev [^ ]+' | sort -u | while read -r _ name; do
    ip -o -$version address show dev "$name" scope global | grep -q . || echo "$name"
  done
}

listed() {
  sort -u | paste -sd , | sed 's/,/, /g'
}

# Prints ports and targets of those rules on standard input whose ports a program of this host
# accepts (yes) or not (no), without those of open ports.
accepted() { # yes or no, listeners, open ports
  awk -v wanted="$1" -v open=",$3," '
    part == "listeners" { if ($3 != "conmon") ports[$1] = 1; next }
    !NF || $3 == "untracked" || index(open, "," $1 ",") { next }
    {
      is_accepted = "no"
      count = split($1, parts, ",")
      for (i = 1; i <= count; i++) {
        last = split(parts[i], ends, "-")
        for (port in ports) if (ends[1] <= port + 0 && port + 0 <= ends[last]) is_accepted = "yes"
      }
      if (is_accepted == wanted) print $1 " to " $3
    }' part=listeners <(echo "$2") part=rules - | listed
}

# Envoy listens on IPv6 in a mesh of both families, and on machines without IPv4.
envoy_has_ipv6() {
  [ "${ISTIO_DUAL_STACK:-}" = true ] || ! ip -4 -o address show scope global | grep -q .
}

changes() {
  local open listening captured rules translated bridges interfaces
  open=$(open_ports)
  listening=$(listeners)
  rules=$(rules_of_ports)
  captured=$(awk -v open=",$open," '
    index(open, "," $1 ",") || $2 ~ /^127\./ || $2 == "::1" || $3 ~ /^(envoy|pilot-agent)$/ { next }
    { print $1 ($3 == "-" ? "" : " (" $3 ")") }' <<<"$listening" | sort -n | listed)
  [ -z "$captured" ] ||
    echo "from outside, these ports ask for a certificate of the mesh where it is strict: $captured"
  echo "these ports stay open without the mesh: ${open//,/, }"
  translated=$(accepted yes "$listening" "$open" <<<"$rules")
  [ -z "$translated" ] ||
    echo "ports that containers publish, or rules redirect, are captured first: $translated"
  translated=$(accepted no "$listening" "$open" <<<"$rules")
  [ -z "$translated" ] ||
    echo "these ports, which rules alone publish, are not reached from outside any more (exclude" \
      "them by capture.excludeInboundPorts): $translated"
  translated=$(awk '$3 == "untracked" { print $1 }' <<<"$rules" | listed)
  [ -z "$translated" ] ||
    echo "these ports are not tracked, by rules of this host, so they are not captured: $translated"
  bridges=$(inner_bridges | listed)
  [ -z "$bridges" ] ||
    echo "containers and VMs at $bridges: what is forwarded for them is not captured," \
      "their connections to this host are"
  interfaces=$(ip -o link show up | sed -nE 's/^[0-9]+: ([^:@]+).*/\1/p' |
    grep -vE '^(lo|veth.*|tap.*|vnet.*)$' |
    grep -vxF "$(
      inner_bridges
      tr , '\n' <<<"${ISTIO_EXCLUDE_INTERFACES:-}"
      echo lo
    )" | listed)
  echo "captured interfaces: ${interfaces:-none}; left out: ${ISTIO_EXCLUDE_INTERFACES:-none}"
  is_local "$INSTANCE_IP" ||
    echo "pods reach this machine at $INSTANCE_IP, which is on none of its interfaces: the agent" \
      "calls the probe at localhost"
  echo "connections of this machine go through Envoy, but those to" \
    "${ISTIO_SERVICE_EXCLUDE_CIDR:-nowhere} and to the ports" \
    "${ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE:-none}"
  if has_ipv6 && ! envoy_has_ipv6; then
    echo "new connections by IPv6 are refused, but those of excluded ports and CIDRs: the mesh" \
      "has no IPv6 (ISTIO_DUAL_STACK)"
  fi
  firewall_changes "$captured"
}

# Prints what firewalls drop of the connections of the mesh, and the ports that they drop until now
# and let in once they are redirected.
firewall_changes() { # captured ports, with their programs
  local rules line fields port connections='' before after let_in
  rules=$(filters)
  dropped "$(needed)" <<<"$rules" | while read -r line; do
    read -ra fields <<<"$line"
    if [ "${FIREWALL:-}" = manage ]; then
      echo "the firewall (${fields[0]}) is opened for $(connection "$line"), while they are" \
        "redirected"
    else
      echo "the firewall (${fields[0]}) drops $(connection "$line"): open it by" \
        "'$(opening "${fields[@]}")', or set firewall: manage"
    fi
  done
  for port in $(grep -oE '(^|, )[0-9]+' <<<"$1" | tr -d ', '); do
    connections+=" $port:$port"
  done
  before=$(dropped "$connections" <<<"$rules" | cut -d ' ' -f 6 | sort -u)
  connections=
  for port in $before; do connections+=" $INBOUND_PORT:$port"; done
  after=$(dropped "$connections" <<<"$rules" | cut -d ' ' -f 6 | sort -u)
  let_in=$(grep -vxF "$after"$'\n'"$(workload_ports)" <<<"$before" | listed)
  [ -z "$let_in" ] ||
    echo "the firewall drops these ports until now, and lets them in once they are redirected" \
      "(exclude them by capture.excludeInboundPorts): $let_in"
}

main() { # refusals or changes
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
  # shellcheck source=/dev/null
  for script in redirect redirect_firewall; do . "${BASH_SOURCE[0]%/*}/$script.sh"; done
  case $1 in
  refusals) refusals ;;
  changes) changes ;;
  esac
  exit 0
}

if ! (return 0 2>/dev/null); then main "$@" </dev/null; fi
