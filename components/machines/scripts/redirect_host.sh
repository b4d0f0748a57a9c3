# What the redirection meets on this host. A join runs it as root, with the environment of the agent
# that it brings, before it changes anything. redirect.sh is beside it. Lines are of two kinds:
# `refusal <text>`: why calls would not reach the application; the last one is `refusals end`.
# `change <text>`: what the redirection is about to change. To know it takes longer.
# INSTANCE_IP is the address by which pods reach the machine.

RESOLVED=/run/systemd/resolve/io.systemd.Resolve
NSSWITCH=/etc/nsswitch.conf
IPVS=/proc/net/ip_vs
GATEWAYS_PORT=15443 # at which gateways of the mesh take connections of other networks
# At which agent and Envoy listen.
PROXY_PORTS=15000,15001,15006,15020,15021,15053,15090
SYSCTLS=/proc/sys/net
SOCKETS=/proc/net/sockstat
MOUNTS=/proc/self/mounts

# Functions of awk: whether a port is in a list of ports and ranges (`80,8000-8100`), and whether
# connections from outside to what listens are redirected. `open` has the ports that stay open.
PORTS='
function is_in(list, port, parts, ends, count, last, i) {
  count = split(list, parts, ",")
  for (i = 1; i <= count; i++) {
    last = split(parts[i], ends, "-")
    if (ends[1] <= port + 0 && port + 0 <= ends[last]) return 1
  }
  return 0
}
function is_captured(port, address, program) {
  return !index(open, "," port ",") && address !~ /^(127\.|::1$)/ &&
    program !~ /^(envoy|pilot-agent)$/
}
'

# Prints the port, the address and the program of each socket that listens for TCP. A socket of all
# addresses has 0.0.0.0, and one of all addresses of IPv6 alone has `::`. One that takes connections
# of an interface alone has `<address>%<interface>`. Java has addresses of IPv4 as those of IPv6.
listeners() {
  awk '$1 == "tcp" {
    port = $5; sub(/.*:/, "", port)
    address = substr($5, 1, length($5) - length(port) - 1)
    gsub(/[][]/, "", address); sub(/%lo$/, "", address); sub(/^::ffff:/, "", address)
    if (address == "*" || (address == "::" && $0 !~ /v6only:1/)) address = "0.0.0.0"
    program = match($0, /\(\("[^"]+"/) ? substr($0, RSTART + 3, RLENGTH - 4) : "-"
    print port, address, program
  }' <<<"$SOCKETS_HERE" | sort -u
}

# Prints what stands between connections and the workload's applications. Columns are separated by
# `|`: the port, the cause, the addresses and programs that listen, and the rule or its target. The
# cause is the first one of a port, or `untracked`. A port that nothing listens on is one whose
# application is still to come.
port_causes() {
  local ports
  ports=$(workload_ports)
  awk -v ports="${ports//$'\n'/ }" -v open=",$OPEN_PORTS," -v instance="$INSTANCE_IP" \
    -v balanced=",$BALANCED," "$PORTS"'
    function join(list, text) { return list == "" ? text : list " " text }
    part == "listeners" {
      if (!(($1, $2) in seen)) addresses[$1] = join(addresses[$1], $2)
      if (!(($1, "", $3) in seen)) names[$1] = join(names[$1], $3)
      seen[$1, $2] = seen[$1, "", $3] = 1
      if ($2 !~ /%/) is_unbound[$1] = 1
      if ($2 !~ /^(127\.|::1$)/) is_outside[$1] = 1
      if ($2 == "0.0.0.0" || $2 == instance || ($2 == "::" && instance ~ /:/)) is_reached[$1] = 1
    }
    part == "rules" {
      for (i = 1; i <= count; i++) {
        port = port_of[i]
        if (!is_in($1, port)) continue
        if ($3 == "untracked") untracked[port] = 1
        else {
          if (!(port in target)) target[port] = $3
          if ($2 != "iptables" && !(port in native))
            native[port] = $2 ~ /\// ? "nftables (table " $2 ")" : $2
        }
      }
    }
    BEGIN { count = split(ports, port_of, " ") }
    END {
      for (i = 1; i <= count; i++) {
        port = port_of[i]; rule = ""; cause = "address"
        if (index(open, "," port ",")) cause = "ssh"
        else if (index(balanced, "," port ",")) cause = "balanced"
        else if (port in native) { cause = "native"; rule = native[port] }
        else if (port in target && (!(port in addresses) || names[port] == "conmon"))
          { cause = "rules"; rule = target[port] }
        else if (!(port in addresses) || port in is_reached) cause = ""
        else if (!(port in is_unbound)) { cause = "interface"; gsub(/[^ ]*%/, "", addresses[port]) }
        else if (!(port in is_outside)) cause = "loopback"
        if (cause) print port "|" cause "|" addresses[port] "|" names[port] "|" rule
        if (port in untracked) print port "|untracked"
      }
    }' part=listeners <(echo "$LISTENERS") part=rules <(echo "$RULES_HERE")
}

port_refusals() {
  local port cause addresses names rule subject
  while IFS='|' read -r port cause addresses names rule; do
    subject="port $port of the workload"
    case $cause in
    ssh)
      echo "$subject is one of SSH here, which is never redirected: let sshd" \
        "listen on another port, or the application"
      ;;
    balanced)
      echo "$subject is balanced by IPVS here, which does not see what the agent" \
        "takes: join the machines behind it instead"
      ;;
    native)
      echo "$subject is published by $rule, whose rules may come" \
        "before those of the mesh: run the container in the host's network (--network host)"
      ;;
    rules)
      echo "$subject is published to $rule by" \
        "rules alone, and Envoy's own connections do not follow these: switch on Docker's" \
        "userland-proxy, or run the container in the host's network (--network host)"
      ;;
    interface)
      echo "$subject: $names takes connections of the interface $addresses alone, and those of" \
        "Envoy come by lo: let it listen on an address instead"
      ;;
    loopback)
      echo "$subject: $names listens on $addresses alone, and" \
        "Envoy connects to the machine's address: let it listen on 0.0.0.0 or $INSTANCE_IP"
      ;;
    address)
      if is_local "$INSTANCE_IP"; then
        echo "$subject: $names listens on $addresses alone, and" \
          "pods reach the machine at $INSTANCE_IP: let it listen on 0.0.0.0 or $INSTANCE_IP"
      else
        echo "$subject: $names listens on $addresses alone, and the machine's address" \
          "$INSTANCE_IP is on none of its interfaces, so the agent calls its probe at localhost:" \
          "let it listen on 0.0.0.0, or set the machine's address"
      fi
      ;;
    untracked)
      echo "$subject is not tracked, by a rule of this host (notrack), and what" \
        "is not tracked is not redirected: delete the rule"
      ;;
    esac
  done < <(port_causes)
}

# Reads what both kinds of lines need, once.
# shellcheck disable=SC2034 # redirect.sh reads PROGRAMS_HERE, SAVED and FORCE_IPTABLES_BINARY
look() {
  local program
  PROGRAMS_HERE=$(programs)
  for program in $PROGRAMS_HERE; do SAVED["$program"]=$("$program-save" 2>/dev/null); done
  FORCE_IPTABLES_BINARY=${FORCE_IPTABLES_BINARY:-$(backend)}
  SOCKETS_HERE=$(
    ss --no-header --tcp --udp --listening --numeric --processes --extended 2>/dev/null
  )
  LISTENERS=$(listeners)
  RULES_HERE=$(rules_of_ports)
  OPEN_PORTS=$(open_ports "$RULES_HERE")
  BRIDGES=$(inner_bridges)
  BALANCED=$(balanced_ports)
}

refusals() {
  port_refusals
  server_refusals
  interface_refusals
  agent_port_refusals
  group_refusals
  kernel_refusals
  if has_ipv6 && ! can_redirect_ipv6; then
    echo "this machine has addresses of IPv6, which ip6tables cannot redirect" \
      "('ip6tables -t nat -S' fails): install ip6tables, load the module ip6table_nat, or disable" \
      "IPv6"
  fi
}

# Prints why the agent would not resolve names. It runs as istio-proxy, reads its name servers when
# it starts, and listens at ::1 where one of them has an address of IPv6.
server_refusals() {
  local cause
  [ "${ISTIO_META_DNS_CAPTURE:-}" = true ] || return 0
  if [ ! -e /etc/resolv.conf ]; then
    echo "there is no /etc/resolv.conf, from which the agent has its name servers: create it"
  elif id nobody >/dev/null 2>&1 && ! runuser -u nobody -- test -r /etc/resolv.conf; then
    echo "the agent, which does not run as root, cannot read /etc/resolv.conf: make it and its" \
      "directory readable ('chmod a+r')"
  elif [ -z "$(name_servers)" ]; then
    echo "/etc/resolv.conf has no name server: programs query 127.0.0.1 then, and the agent" \
      "redirects no query: write 'nameserver 127.0.0.1', or another one, into it"
  elif [[ $(name_servers) == *:* ]] && ! is_local ::1; then
    echo "/etc/resolv.conf has a name server of IPv6, and this machine has no ::1, where the" \
      "agent would listen for its queries: delete the name server, or enable IPv6 for lo"
  elif needs_other_servers && ! cause=$(with_servers_of /etc/resolv.conf true 2>&1); then
    echo "/etc/resolv.conf has name servers whose queries cannot be redirected, and this machine" \
      "does not permit to show istio-iptables the others alone ($cause): permit it" \
      "('unshare --mount mount --bind /etc/resolv.conf /etc/resolv.conf'), or let the file have" \
      "$(reached_servers captured | listed) alone"
  fi
}

# Prints the programs that listen where the agent or Envoy will. At 15000 and 15053 these listen on
# loopback alone.
agent_port_refusals() {
  local port program pid
  while read -r port program pid; do
    grep -qs '/istio-vm-mesh\.service' "/proc/$pid/cgroup" ||
      echo "$program listens on port $port, which the agent needs: let it listen on another port"
  done < <(awk -v ports=",$PROXY_PORTS," '{
    port = $5; sub(/.*:/, "", port)
    if (!index(ports, "," port ",") || ($1 == "udp" && port != 15053)) next
    if (port ~ /^(15000|15053)$/ && $5 !~ /^(127\.|0\.0\.0\.0|\*|\[::1?\])/) next
    program = match($0, /\(\("[^"]+"/) ? substr($0, RSTART + 3, RLENGTH - 4) : "-"
    pid = match($0, /pid=[0-9]+/) ? substr($0, RSTART + 4, RLENGTH - 4) : "-"
    print port, program, pid
  }' <<<"$SOCKETS_HERE" | sort -u)
}

# Prints why this kernel does not take the rules. It may lack modules: those of a kernel that was
# upgraded since the boot are gone. The rules are tried in a network of their own.
kernel_refusals() {
  local program cause comment="-m comment --comment $STAMP"
  program=iptables${FORCE_IPTABLES_BINARY:+-$FORCE_IPTABLES_BINARY}
  ! unshare --net true 2>/dev/null ||
    cause=$(printf '%s\n' '*nat' '-A PREROUTING -m addrtype ! --dst-type LOCAL -j RETURN' \
      "-A PREROUTING -p tcp -j DNAT --to-destination :$INBOUND_PORT" \
      "-A OUTPUT -p tcp -m owner --uid-owner 0 $comment -j REDIRECT --to-ports 1" \
      COMMIT '*raw' '-A OUTPUT -p udp -m udp --dport 53 -j CT --zone 1' COMMIT |
      unshare --net "$program-restore" 2>&1) ||
    echo "this host does not take the rules of the redirection" \
      "($(grep -v '^#' <<<"$cause" | head -n 1)): load the modules of its kernel, such as" \
      "xt_owner, or reboot it if its kernel was upgraded"
}

# Prints whose connections would go past the mesh. Those of the proxy's group are not redirected.
group_refusals() {
  local group others
  group=$(id -g istio-proxy 2>/dev/null) || return 0
  others=$(getent passwd | awk -F : -v group="$group" '
    $4 == group && $1 != "istio-proxy" { print $1 }' | listed)
  [ -z "$others" ] ||
    echo "the user istio-proxy has the group $(id -gn istio-proxy), and so has" \
      "$others: connections of the proxy's group go past the mesh: give istio-proxy" \
      "a group of its own" \
      "('groupadd --system istio-proxy; usermod --gid istio-proxy istio-proxy')"
}

# Prints why Envoy would not get connections: it listens in no VRF.
interface_refusals() {
  local name
  name=$(pod_interface)
  [ -z "$name" ] || ! ip -d -o link show dev "$name" 2>/dev/null | grep -q ' vrf_slave ' ||
    [ "$(cat /proc/sys/net/ipv4/tcp_l3mdev_accept 2>/dev/null)" = 1 ] ||
    echo "$name, by which connections come, is in a VRF, in which Envoy does not listen: set the" \
      "sysctl net.ipv4.tcp_l3mdev_accept=1"
}

# Functions of awk: `add` notes a text of a list, once, and `text_of` returns the list. Of a long
# one it has the first texts, and how many more there are.
LISTS='
function add(list, text) {
  if ((list, text) in is_added) return
  is_added[list, text] = 1
  gsub(/,/, ", ", text)
  texts[list, ++count_of[list]] = text
}
function text_of(list, i, last, text) {
  last = count_of[list] > 40 ? 30 : count_of[list]
  for (i = 1; i <= last; i++) text = text (i > 1 ? ", " : "") texts[list, i]
  return text (last < count_of[list] ? ", and " count_of[list] - last " more" : "")
}
'

# Prints the lines of standard input in one.
listed() {
  awk "$LISTS"'{ add("", $0) } END { if (NR) print text_of("") }'
}

# Envoy listens on IPv6 in a mesh of both families, and on machines without IPv4.
envoy_has_ipv6() {
  [ "${ISTIO_DUAL_STACK:-}" = true ] || [ -z "$(ip -4 -o address show scope global)" ]
}

# Prints what becomes of this host's ports.
port_changes() {
  awk -v open=",$OPEN_PORTS," "$PORTS$LISTS"'
    function show(list, words) { if (count_of[list]) print words ": " text_of(list) }
    !NF { next }
    part == "listeners" {
      if ($3 != "conmon") ports[$1] = 1
      if (is_captured($1, $2, $3)) add("captured", $1 ($3 == "-" ? "" : " (" $3 ")"))
      next
    }
    $3 == "untracked" { add("untracked", $1); next }
    !index(open, "," $1 ",") {
      is_accepted = 0
      for (port in ports) if (is_in($1, port)) is_accepted = 1
      add(is_accepted ? "translated" : "lost", $1 " to " $3)
    }
    END {
      show("captured",
        "from outside, these ports ask for a certificate of the mesh where it is strict")
      gsub(/^,|,$/, "", open); gsub(/,/, ", ", open)
      print "these ports stay open without the mesh: " open
      show("translated", "ports that containers publish, or rules redirect, are captured first")
      show("lost", "these ports, which rules alone publish, are not reached from outside any more" \
        " (exclude them by capture.excludeInboundPorts)")
      show("untracked",
        "these ports are not tracked, by rules of this host, so they are not captured")
    }' part=listeners <(echo "$LISTENERS") part=rules <(echo "$RULES_HERE")
}

changes() {
  local interfaces saved firewalls
  port_changes
  [ -z "$BRIDGES" ] ||
    echo "containers and VMs at ${BRIDGES//$'\n'/, }: what is forwarded for them is not" \
      "captured, their connections to this host are"
  interfaces=$(ip -o link show up |
    awk -v left_out=" ${BRIDGES//$'\n'/ } ${ISTIO_EXCLUDE_INTERFACES//,/ } lo " '{
      name = $2; sub(/[:@].*/, "", name)
      if (name !~ /^(veth|tap|vnet)/ && !index(left_out, " " name " ")) print name }' | listed)
  echo "captured interfaces: ${interfaces:-none}; left out: ${ISTIO_EXCLUDE_INTERFACES:-none}"
  is_local "$INSTANCE_IP" ||
    echo "pods reach this machine at $INSTANCE_IP, which is on none of its interfaces: the agent" \
      "calls the probe at localhost"
  echo "connections of this machine go through Envoy, but those to" \
    "${ISTIO_SERVICE_EXCLUDE_CIDR:-nowhere} and to the ports" \
    "${ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE:-none}. Where outboundTrafficPolicy is REGISTRY_ONLY," \
    "it refuses hosts that the mesh does not have (add a ServiceEntry, or" \
    "capture.excludeOutboundCidrs)"
  if has_ipv6 && ! envoy_has_ipv6; then
    echo "new connections by IPv6 are refused, but those of excluded ports and CIDRs: the mesh" \
      "has no IPv6 (ISTIO_DUAL_STACK)"
  fi
  servers_changes
  mount_changes
  routing_changes
  port_range_changes
  connection_changes
  chain_changes
  saved=$(saved_rules)
  [ -z "$saved" ] ||
    echo "rules of the redirection are saved in ${saved//$'\n'/, }: save the rules of this host" \
      "again once it has left the mesh, or a boot brings these back"
  firewalls=$(filters)
  firewall_changes "$firewalls"
  outgoing_changes "$firewalls"
}

# Whether rules may drop anything: chains that accept, and have none, do not.
may_drop() { # what filters printed
  # Alternatives in one pattern would take the square of the time.
  local text=$'\n'$1$'\n'
  [[ $text == *$'\nrule\t'* || $text == *$'\tdrop\n'* ]]
}

# Prints what firewalls drop of the connections that go out. All of them are the proxy's, but those
# that are excluded.
outgoing_changes() { # what filters printed
  local drops port line fields ports rules=$1
  may_drop "$rules" || return 0
  ports=$(for port in $GATEWAYS_PORT $(workload_ports); do echo "$port:$port"; done | paste -sd ' ')
  drops=$(
    dropped_out tcp "$ports" <<<"$rules"
    dropped_out udp 53:53 <<<"$rules"
  )
  [ -n "$drops" ] || return 0
  read -ra fields <<<"$drops"
  ports=$(cut -d ' ' -f 5 <<<"$drops" | sort -nu | while read -r port; do
    case $port in
    "$GATEWAYS_PORT") echo "$port (gateways of other networks)" ;;
    53) echo "53/udp (name servers)" ;;
    *) echo "$port (pods)" ;;
    esac
  done | paste -sd , | sed 's/,/, /g')
  line="the firewall (${fields[0]}) drops what the proxy sends out to $ports: connections of this"
  line+=" machine are the proxy's from now on, to ports of pods too: let its user out by"
  echo "$line '$(way_for_proxy "${fields[@]}")'"
}

# Prints the command that lets the proxy out. ufw has no rules for users.
way_for_proxy() { # firewall program table chain port
  case $1 in
  ufw) echo "ufw allow out $5" ;;
  nftables) echo "nft insert rule ${3/\// } $4 meta skuid istio-proxy accept" ;;
  *) echo "$2 -t ${3#*/} -I $4 -m owner --uid-owner istio-proxy -j ACCEPT" ;;
  esac
}

# Prints which programs resolve names without the agent.
servers_changes() {
  local captured others
  [ "${ISTIO_META_DNS_CAPTURE:-}" = true ] || return 0
  others=$(reached_servers others | listed)
  if [ -n "$others" ]; then
    captured=$(reached_servers captured | listed)
    echo "names of the mesh resolve by the name servers ${captured:-none}" \
      "alone, not by $others: these are link-local, or one of this machine may ask them"
  fi
  if [ -S "$RESOLVED" ] &&
    grep -qE '^[[:space:]]*hosts:.*[[:space:]]resolve([[:space:]]|$)' "$NSSWITCH"; then
    echo "programs ask systemd-resolved by its socket, so names of the mesh do not resolve for" \
      "them: take 'resolve' out of the line 'hosts' in $NSSWITCH, so that 'dns' asks"
  fi
}

# Prints what routing and balancing of this host do not do any more. Connections of the proxy have
# neither the mark nor the user of the program that begins them.
routing_changes() {
  local rules
  rules=$(for family in -4 -6; do ip $family rule show; done 2>/dev/null |
    awk '/ (fwmark|uidrange|sport|dport|ipproto) / { sub(/^[0-9]+:[ \t]*/, ""); print }' | listed)
  [ -z "$rules" ] ||
    echo "rules of routing are for connections of some programs or ports ($rules): those that go" \
      "through Envoy have neither mark nor user of the program" \
      "(exclude them by capture.excludeOutboundCidrs)"
  [ -z "$BALANCED" ] ||
    echo "ports that IPVS balances here are captured first (exclude them by" \
      "capture.excludeInboundPorts): ${BALANCED//,/, }"
}

# Prints file systems of servers whose connections are not excluded. The kernel opens them, as no
# user. NFS takes a port below 1024, which servers demand (`secure`), and Envoy has none.
mount_changes() {
  local mounts
  mounts=$(awk -v ports=",${ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE:-}," \
    -v cidrs="${ISTIO_SERVICE_EXCLUDE_CIDR:-}" '
    function number(address, parts) {
      split(address, parts, ".")
      return ((parts[1] * 256 + parts[2]) * 256 + parts[3]) * 256 + parts[4]
    }
    function is_excluded(address, count, each, i, pair, size) {
      count = split(cidrs, each, ",")
      for (i = 1; i <= count; i++) {
        if ((address each[i]) ~ /:/) continue
        size = split(each[i], pair, "/") < 2 ? 1 : 2 ^ (32 - pair[2])
        if (int(number(address) / size) == int(number(pair[1]) / size)) return 1
      }
      return 0
    }
    BEGIN { port["nfs"] = port["nfs4"] = 2049; port["cifs"] = port["smb3"] = 445 }
    $3 in port {
      address = match($4, /(^|,)addr=[^,]+/) ? substr($4, RSTART, RLENGTH) : ""
      sub(/.*addr=/, "", address)
      number_of = match($4, /(^|,)port=[0-9]+/) ? substr($4, RSTART, RLENGTH) : port[$3]
      sub(/.*=/, "", number_of)
      if (address ~ /^(127\.|::1$)/ || index(ports, "," number_of ",") || is_excluded(address)) next
      print $1 " (" address " port " number_of ")"
    }' "$MOUNTS" 2>/dev/null | listed)
  [ -z "$mounts" ] ||
    echo "file systems of servers: their next connections go through Envoy, from a port above" \
      "1023, and hang while the agent is stopped (exclude them by capture.excludeOutboundCidrs):" \
      "$mounts"
}

# Prints whether a connection of this host may have a port of the agent when the agent starts.
port_range_changes() {
  local first last reserved='' free=''
  read -r first last <"$SYSCTLS/ipv4/ip_local_port_range" || return 0
  read -r reserved <"$SYSCTLS/ipv4/ip_local_reserved_ports"
  [ "$first" -gt "${PROXY_PORTS##*,}" ] ||
    free=$(awk -v ports="$PROXY_PORTS" -v reserved="$reserved" -v range="$first-$last" "$PORTS"'
    BEGIN {
      count = split(ports, port_of, ",")
      for (n = 1; n <= count; n++)
        if (is_in(range, port_of[n]) && !is_in(reserved, port_of[n])) print port_of[n] }')
  [ -z "$free" ] ||
    echo "the agent does not start while a connection of this host has one of its ports, and" \
      "net.ipv4.ip_local_port_range ($first-$last) permits that: set the sysctl" \
      "net.ipv4.ip_local_reserved_ports=${reserved:+$reserved,}15000-15090"
} 2>/dev/null

# Prints whether the kernel may have too few entries for connections. The redirection has it follow
# each one, and Envoy's beside it. What has no entry is dropped, of any program of the host.
connection_changes() {
  local most count sockets
  read -r most <"$SYSCTLS/netfilter/nf_conntrack_max" && [ "$most" != 0 ] || return 0
  read -r count <"$SYSCTLS/netfilter/nf_conntrack_count"
  sockets=$(awk '/^TCP:/ { print $7 + $9 }' "$SOCKETS")
  [ "${sockets:-0}" -le "$count" ] || count=$sockets
  [ $((count * 2)) -le "$most" ] ||
    echo "this host has $count connections, the redirection needs two entries for each, and the" \
      "kernel drops what is beyond $most: raise the sysctl net.netfilter.nf_conntrack_max"
} 2>/dev/null

# Prints whose chains are removed: an agent that was installed by hand leaves them.
chain_changes() {
  local program
  # shellcheck disable=SC2153 # redirect.sh assigns it
  [ ! -d "$RULES" ] || return 0
  for program in $(programs); do
    ! has_chains "$program" ||
      echo "chains of Istio that are here already ($program) are removed, and do not come back"
  done
}

# Prints the ports of the services of IPVS, separated by commas. The kernel shows addresses and
# ports as hexadecimal numbers.
balanced_ports() {
  local port list=''
  [ -e "$IPVS" ] || return 0
  while read -r port; do
    list+=",$((16#$port))"
  done < <(awk '$1 == "TCP" { sub(/.*:/, "", $2); if (!seen[$2]++) print $2 }' "$IPVS")
  echo "${list#,}"
}

# Prints what firewalls drop of the connections of the mesh, and the ports that they drop until now
# and let in once they are redirected.
firewall_changes() { # what filters printed
  local line fields port connections before after let_in rules=$1
  may_drop "$rules" || return 0
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
  connections=$(awk -v open=",$OPEN_PORTS," "$PORTS"'
    is_captured($1, $2, $3) { printf "%s:%s ", $1, $1 }' <<<"$LISTENERS")
  before=$(dropped "$connections" <<<"$rules" | cut -d ' ' -f 6 | sort -u)
  connections=
  for port in $before; do connections+=" $INBOUND_PORT:$port"; done
  after=$(dropped "$connections" <<<"$rules" | cut -d ' ' -f 6 | sort -u)
  let_in=$(grep -vxF "$after"$'\n'"$(workload_ports)" <<<"$before" | listed)
  [ -z "$let_in" ] ||
    echo "the firewall drops these ports until now, and lets them in once they are redirected" \
      "(exclude them by capture.excludeInboundPorts): $let_in"
}

main() {
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR=/run
  # shellcheck source=/dev/null
  for script in redirect redirect_firewall; do . "${BASH_SOURCE[0]%/*}/$script.sh"; done
  look
  refusals | sed 's/^/refusal /'
  echo 'refusals end'
  changes | sed 's/^/change /'
  exit 0
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
