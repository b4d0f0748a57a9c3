# Firewalls of this host, and the connections of the mesh that they drop. redirect.sh and the
# scripts beside it read this text. A redirected connection reaches the filter with the agent's
# port, and with the port that it was for as its original one. Rules before the translation see
# that one.
# INSTANCE_IP is the address by which pods reach the machine; ISTIO_META_POD_PORTS has the ports of
# the workload. FIREWALL is `manage` where firewalls are opened. HEALTH_CHECKED is 1 where a load
# balancer or an instance group calls the agent's health check.
INBOUND_PORT=15006
HEALTH_PORT=15021
STAMP=istio-vm-mesh # the comment of rules that open
OPENED=/run/istio-vm-mesh-firewalld
FAMILY=ip IP_VERSION=-4
[[ ${INSTANCE_IP:-} != *:* ]] || FAMILY=ip6 IP_VERSION=-6

# Prints the ports of the workload.
workload_ports() {
  local rest=${ISTIO_META_POD_PORTS:-}
  while [[ $rest =~ '"containerPort":'([0-9]+)(.*) ]]; do
    echo "${BASH_REMATCH[1]}"
    rest=${BASH_REMATCH[2]}
  done
}

# Prints the connections that must come in, as `<port>:<original port>` with blanks between.
needed() {
  local port list=''
  for port in $(workload_ports); do list+="$INBOUND_PORT:$port "; done
  echo "$list${HEALTH_CHECKED:+$HEALTH_PORT:$HEALTH_PORT}"
}

# Prints the interface by which pods reach the machine: that of its address, else the way out, where
# the address is translated on the way.
pod_interface() {
  local pattern=": ([^ ]+) +inet6? ${INSTANCE_IP//./\\.}[/ ]"
  if [[ $(ip -o "$IP_VERSION" address show 2>/dev/null) =~ $pattern ]]; then
    echo "${BASH_REMATCH[1]}"
  else
    way_out
  fi
}

# Prints the interface of the default route.
way_out() {
  [[ ! $(ip -o "$IP_VERSION" route show default 2>/dev/null) =~ \ dev\ ([^ ]+) ]] ||
    echo "${BASH_REMATCH[1]}"
}

# Prints the rules of all firewalls, but of chains that do not filter. Those of the redirection drop
# nothing, and are left out. Fields have a tab between:
# `chain <program> <table> <chain> <hook> <priority> <policy>`, `set <program> <table> <name>
# <elements>`, `rule <program> <table> <chain> <rule>`. A table has its family, for nft.
filters() {
  local hooks='prerouting|input|output|postrouting'
  local name text shown=''
  for name in $(programs); do
    [[ $name == ${FAMILY}tables* ]] || continue
    text=${SAVED[$name]-$("$name-save" 2>/dev/null)} || continue
    awk -v OFS='\t' -v program="$name" -v family="$FAMILY" -v hooks="^:(${hooks^^})$" "$OURS"'
      BEGIN { split("raw -300 mangle -150 filter 0 security 50", words, " ")
        for (i = 1; i in words; i += 2) priority[words[i]] = words[i + 1] }
      /^\*/ { table = substr($1, 2) }
      $1 ~ hooks && table in priority {
        print "chain", program, family "/" table, substr($1, 2), tolower(substr($1, 2)),
          priority[table], tolower($2) }
      /^-A / && table in priority {
        name = $2; sub(/^-A [^ ]+ /, "")
        if (!is_ours(name, $0)) print "rule", program, family "/" table, name, $0
      }
      ' <<<"$text"
    [[ $name == *-legacy ]] || shown+=$(sed -n "s#^\*#$FAMILY/#p" <<<"$text")$'\n'
  done
  list_tables "$shown" | awk -v OFS='\t' -v hooks="^($hooks)$" '
    BEGIN { split("raw -300 mangle -150 dstnat -100 filter 0 security 50 srcnat 100", words, " ")
      for (i = 1; i in words; i += 2) priority[words[i]] = words[i + 1] }
    function number(text, words) {
      split(text, words, " ")
      return (words[1] in priority ? priority[words[1]] : words[1]) + (words[2] words[3])
    }
    function print_set() { if (elements != "") print "set", "nft", table, set, elements; set = "" }
    /^table / {
      table = $2 "/" $3
      next
    }
    /^\t(set|map) / { set = $2; elements = ""; next }
    # Addresses of clients are not asked for, and may be tens of thousands.
    /^\t\ttype(of)? .*addr/ && set != "" { set = ""; next }
    /^\tchain / { chain = $2; next }
    /^\t\}/ { if (set != "") print_set(); chain = set = ""; next }
    set != "" {
      if (sub(/^.*elements = \{ ?/, "")) within = 1
      if (within) { gsub(/[ \t]/, ""); within = !sub(/\}.*/, ""); elements = elements $0 }
      next
    }
    chain != "" && /^\t\ttype .* hook / {
      hook = priority_text = $0; policy = "accept"
      sub(/.* hook /, "", hook); sub(/ .*/, "", hook)
      sub(/.* priority /, "", priority_text); sub(/;.*/, "", priority_text)
      if (match($0, /policy [a-z]+/)) policy = substr($0, RSTART + 7, RLENGTH - 7)
      if ($2 == "filter" && hook ~ hooks)
        print "chain", "nft", table, chain, hook, number(priority_text), policy
      next
    }
    chain != "" && /^\t\t/ { sub(/^\t+/, ""); print "rule", "nft", table, chain, $0 }'
}

# Prints the tables of nftables that filter, as nft does, but those that iptables has shown.
list_tables() { # tables, with their families
  local family name
  nft list tables 2>/dev/null | while read -r _ family name; do
    [[ $family == @(inet|"$FAMILY") && $name != istio_vm_mesh ]] || continue
    [[ $'\n'$1 != *$'\n'"$family/$name"$'\n'* ]] || continue
    nft list table "$family" "$name" 2>/dev/null
  done
}

# Prints which connections the rules on standard input drop, one a line:
# `<firewall> <program> <table> <chain> <port> <original port>`. Each is a new TCP connection from
# outside. Some conditions of a rule cannot be evaluated here, such as the client's address. With
# one, a rule that drops is ignored. A rule that accepts counts only if it names the port.
dropped() { # connections, as `needed` prints them
  dropped_of tcp "$(pod_interface)" "${INSTANCE_IP:-}" '' "$1"
}

# As above, of the rules for what goes out: packets of the proxy, which runs as a user of its own. A
# rule that accepts a network may be for pods, so it is a reason to accept.
dropped_out() { # protocol, connections
  dropped_of "$1" "$(way_out)" '' "istio-proxy $(id -u istio-proxy 2>/dev/null)" "$2"
}

dropped_of() { # protocol, interface, address of this machine, names of the sender, connections
  awk -F '\t' -v protocol="$1" -v interface="$2" -v address="$3" -v user="$4" -v packets="$5" \
    -v family="$FAMILY" '
    BEGIN {
      single = "^(oifname|oif|mark|skuid|skgid|iifgroup|iiftype|pkttype)$"
      numbers_of["tcp"] = 6; numbers_of["udp"] = 17
      is_out = user != ""
      hooks = is_out ? "^(output|postrouting)$" : "^(prerouting|input)$"
    }
    $1 == "chain" && $5 !~ hooks { next }
    $1 == "chain" { bases[++base_count] = $2 "\t" $3 "\t" $4
      hook[base_count] = $5; priority[base_count] = $6; policy[base_count] = $7; next }
    $1 == "set" { sets[$2, $3, $4] = $5; next }
    $1 == "rule" { text = $5; for (i = 6; i <= NF; i++) text = text " " $i
      chain = $2 "\t" $3 "\t" $4; exists[chain] = 1; rules[chain, ++count[chain]] = text }

    function has_port(list, port, parts, ends, i, n, m) {
      gsub(/[{}]/, "", list)
      n = split(list, parts, ",")
      for (i = 1; i <= n; i++) {
        m = split(parts[i], ends, /[-:]/)
        if (ends[1] + 0 <= port && port <= ends[m] + 0) return 1
      }
      return 0
    }
    function has_word(list, word, parts, i, n) {
      gsub(/[{}"]/, "", list)
      n = split(list, parts, ",")
      for (i = 1; i <= n; i++)
        if (parts[i] == word || (parts[i] ~ /[+*]$/ &&
          index(word, substr(parts[i], 1, length(parts[i]) - 1)) == 1)) return 1
      return 0
    }

    function has_user(list, names, i, n) {
      n = split(user, names, " ")
      for (i = 1; i <= n; i++) if (has_word(list, names[i])) return 1
      return 0
    }

    # Each condition of a rule ends here: matches is 0 where it is not met, unknown is 1 where it is
    # not known.
    function met(is_met) {
      if (is_negated ? is_met : !is_met) matches = 0
      is_negated = 0
    }
    function met_port(list, number) {
      if (!is_negated && has_port(list, number)) names_port = 1
      met(has_port(list, number))
    }

    function met_network(list) {
      if (list ~ /\// && list !~ /\/(32|128)$/) names_port = 1
    }

    function read_iptables(rule, w, n, i) {
      gsub(/"([^"\\]|\\.)*"/, "text", rule)
      n = split(rule, w, " ")
      for (i = 1; i <= n; i++) {
        if (w[i] == "!") is_negated = 1
        else if (w[i] == "-m") i++
        else if (w[i] == "--comment") i++
        else if (w[i] == "-p")
          { i++; met(w[i] == protocol || w[i] == numbers_of[protocol] || w[i] == "all") }
        else if (is_out && w[i] == "-o") met(has_word(w[++i], interface))
        else if (is_out && w[i] == "-d") { unknown = 1; is_negated = 0; met_network(w[++i]) }
        else if (is_out && w[i] == "--uid-owner") met(has_user(w[++i]))
        else if (w[i] == "-i") met(has_word(w[++i], interface))
        else if (w[i] == "-d" && w[i + 1] ~ "^" address "(/(32|128))?$") { i++; met(1) }
        else if (w[i] ~ /^--dports?$/) met_port(w[++i], port)
        else if (w[i] == "--ctorigdstport") met_port(w[++i], original)
        else if (w[i] ~ /^--(ct)?state$/)
          { i++; met(has_word(w[i], "NEW") || (translated && has_word(w[i], "DNAT"))) }
        else if (w[i] == "--dst-type") met(has_word(w[++i], is_out ? "UNICAST" : "LOCAL"))
        else if (w[i] == "--tcp-flags") { i += 2; met(w[i] == "SYN") }
        else if (w[i] ~ /^-[jg]$/) {
          is_goto = w[i] == "-g"
          target = w[i + 1]
          if (target == "ACCEPT" || target ~ /^NFQUEUE|^QUEUE/) target = "accept"
          else if (target ~ /^(DROP|REJECT|TARPIT)$/) target = "drop"
          else if (target == "RETURN") target = "return"
          return
        }
        else { unknown = 1; is_negated = 0; if (w[i + 1] !~ /^(-|!)/) i++ }
      }
    }

    function value(w, i) { # the place of it, behind an operator
      if (w[i] ~ /^(==|!=)$/) { is_negated = w[i] == "!="; i++ }
      return i
    }
    function resolved(list) { # a named set
      return list ~ /^@/ ? sets[program, table, substr(list, 2)] : list
    }
    # The verdict of a map for a key.
    function look_up(list, key, is_port, parts, i, n, at, each) {
      gsub(/[{}]/, "", list)
      n = split(list, parts, ",")
      for (i = 1; i <= n; i++) {
        at = match(parts[i], /:[a-z]/)
        if (!at) continue
        each = substr(parts[i], 1, at - 1)
        if ((is_port && has_port(each, key)) || (!is_port && has_word(each, key))) {
          names_port = names_port || is_port
          verdict_of(substr(parts[i], at + 1))
          return
        }
      }
      matches = 0
    }
    function verdict_of(text) {
      target = text
      is_goto = text ~ /^goto/
      sub(/^(jump|goto)/, "", target)
    }
    function test(w, i, key, is_port) {
      i = value(w, i)
      if (w[i] == "vmap") { look_up(resolved(w[++i]), key, is_port); return i }
      if (is_port) met_port(resolved(w[i]), key)
      else met(has_word(resolved(w[i]), key))
      return i
    }
    function tight(rule, opening, closing, text, inner) { # no blanks within brackets
      while (match(rule, opening)) {
        text = text substr(rule, 1, RSTART - 1); rule = substr(rule, RSTART)
        if (!match(rule, closing)) break
        inner = substr(rule, 1, RSTART); rule = substr(rule, RSTART + 1)
        gsub(/ /, "", inner); text = text inner
      }
      return text rule
    }

    function read_nft(rule, w, n, i) {
      gsub(/ ?comment "[^"]*"/, "", rule); gsub(/prefix "[^"]*"/, "", rule)
      gsub(/ ?log( +(level|group|snaplen|queue-threshold|flags) [^ ]+| )*/, " ", rule)
      gsub(/counter( packets [0-9]+ bytes [0-9]+)?/, "", rule)
      if (gsub(/limit rate (over )?[0-9]+[ a-z]*\/[a-z]+( burst [0-9]+ [a-z]+)?/, "", rule))
        unknown = 1
      rule = tight(tight(rule, "[{]", "[}]"), "[(]", "[)]")
      n = split(rule, w, " ")
      for (i = 1; i <= n; i++) {
        if (w[i] == "meta") i++
        if (w[i] ~ /^(accept|drop|return|continue)$/) { if (target == "") target = w[i] }
        else if (w[i] == "queue") { target = "accept"; return }
        else if (w[i] == "reject") { target = "drop"; return }
        else if (w[i] ~ /^(jump|goto)$/) { is_goto = w[i] == "goto"; target = w[++i] }
        else if (w[i] == "l4proto" || w[i] w[i + 1] ~ /^(ipprotocol|ip6nexthdr)$/)
          i = test(w, i + (w[i] == "l4proto" ? 1 : 2), protocol)
        else if (w[i] == "nfproto") i = test(w, i + 1, family == "ip" ? "ipv4" : "ipv6")
        else if (w[i] ~ /^iif(name)?$/) i = test(w, i + 1, interface)
        else if (is_out && w[i] ~ /^oif(name)?$/) i = test(w, i + 1, interface)
        else if (is_out && w[i] == "skuid") { i = value(w, i + 1); met(has_user(resolved(w[i]))) }
        else if (is_out && w[i + 1] == "daddr") {
          i = value(w, i + 2); unknown = 1; is_negated = 0; met_network(resolved(w[i]))
        }
        else if ((w[i] == protocol || w[i] == "th") && w[i + 1] == "dport")
          i = test(w, i + 2, port, 1)
        else if (w[i] w[i + 1] == "tcpflags" && protocol == "tcp") i = read_flags(w, i + 2, n)
        else if (w[i] != protocol &&
          w[i] ~ /^(tcp|udp|icmp|icmpv6|sctp|dccp|esp|ah|udplite|igmp)$/) matches = 0
        else if (w[i] w[i + 1] == "ctstate") i = test(w, i + 2, "new")
        else if (w[i] w[i + 1] == "ctstatus") {
          i = value(w, i + 2)
          met(translated && has_word(w[i], "dnat"))
        }
        else if (w[i] w[i + 1] w[i + 2] == "ctoriginalproto-dst") i = test(w, i + 3, original, 1)
        else if (w[i] ~ /^ip6?$/ && w[i + 1] == "daddr" && w[i + 2] == address) i += 2
        else if (w[i] == "fib") {
          while (i < n && w[i] !~ /^(type|oif|oifname)$/) i++
          if (w[i] == "type") i = test(w, i + 1, is_out ? "unicast" : "local")
          else { i = value(w, i + 1); met(w[i] == "exists") }
        }
        else if (w[i] ~ /^(ip|ip6|ct|tcp|th|ether|rt|socket|vlan)$/ || w[i] ~ single) {
          unknown = 1
          if (w[i] !~ single) i++
          if (w[i + 1] == "original" || w[i + 1] == "reply") i++
          i = value(w, i + 1); is_negated = 0
          if (w[i] == "set") { unknown = unknown_before; i++ }
        }
        else if (w[i] != "" && w[i] !~ /^(notrack|continue)$/) unknown = 1
        unknown_before = unknown
      }
    }
    # A first packet has SYN alone: `& (fin|syn|rst|ack) == syn`, or `syn / fin,syn,rst,ack`.
    function read_flags(w, i, n) {
      if (w[i] == "&") { i = value(w, i + 2); met(w[i] == "syn"); return i }
      i = value(w, i)
      met(w[i] == "syn")
      return w[i + 1] == "/" ? i + 2 : i
    }

    # The end of a connection in a chain: accept, drop, or "" where it goes on.
    function follow(chain, depth, i, end, fields, jumps, is_known) {
      if (depth > 20) return ""
      for (i = 1; i <= count[chain]; i++) {
        if ((chain, i) in is_idle) continue
        split(chain, fields, "\t"); program = fields[1]; table = fields[2]
        target = ""; is_goto = unknown = is_negated = names_port = unknown_before = 0; matches = 1
        if (program == "nft") read_nft(rules[chain, i])
        else read_iptables(rules[chain, i])
        # It changes nothing, whatever the port: most rules of a long list of addresses.
        if (unknown && !names_port && target ~ /^(accept|drop|return)$/ &&
          rules[chain, i] !~ /port|proto|vmap/) is_idle[chain, i] = 1
        if (!matches || target == "" || target == "continue") continue
        is_known = !unknown
        if (target == "return") { if (is_known) return ""; continue }
        end = target
        if (end != "accept" && end != "drop") {
          jumps = is_goto
          if (!((program "\t" table "\t" target) in exists)) continue
          end = follow(program "\t" table "\t" target, depth + 1)
          if (end == "" && jumps && is_known) return ""
        }
        if (end == "accept" && (is_known || names_port)) return end
        if (end == "drop" && is_known) return end
      }
      return ""
    }
    function firewall(program, table) {
      if (table ~ /\/firewalld$/ || (program "\t" table "\tINPUT_ZONES") in exists ||
        (program "\t" table "\tIN_public") in exists) return "firewalld"
      if ((program "\t" table "\tufw-user-input") in exists ||
        (program "\t" table "\tufw6-user-input") in exists) return "ufw"
      return program == "nft" ? "nftables" : "iptables"
    }
    END {
      packet_count = split(packets, packet, " ")
      for (b = 1; b <= base_count; b++) for (p = 1; p <= packet_count; p++) {
        split(packet[p], numbers, ":")
        port = numbers[1]; original = numbers[2]
        translated = port != original
        if (hook[b] == "prerouting" && priority[b] <= -100) { port = original; translated = 0 }
        split(bases[b], place, "\t")
        end = follow(bases[b], 0)
        if (end == "drop" || (end == "" && policy[b] == "drop"))
          print firewall(place[1], place[2]), place[1], place[2], place[3], port, original
      }
    }' | sort -u
}

# Prints the command that opens a firewall for a line of `dropped`, in the words of that firewall.
opening() { # firewall program table chain port original
  local command
  case $1 in
  ufw) echo "ufw allow $5/tcp" ;;
  firewalld)
    command="firewall-cmd --permanent$(zone_option) --add-port=$5/tcp"
    echo "$command && firewall-cmd --reload"
    ;;
  nftables) echo "nft $(nft_rule "${@:3}")" ;;
  *) echo "$2 -t ${3#*/} $(iptables_rule "${@:4}")" ;;
  esac
}

nft_rule() { # table chain port original
  local original=''
  [ "$3" = "$4" ] || original=" ct original proto-dst $4"
  echo "insert rule ${1/\// } $2 tcp dport $3$original accept comment \"$STAMP\""
}

iptables_rule() { # chain port original
  local original=''
  [ "$2" = "$3" ] || original=" -m conntrack --ctorigdstport $3"
  echo "-I $1 -p tcp -m tcp --dport $2$original -m comment --comment $STAMP -j ACCEPT"
}

# Prints the option for the zone of the pods' interface; nothing for the default zone.
zone_option() {
  local zone
  zone=$(firewall-cmd --get-zone-of-interface="$(pod_interface)" 2>/dev/null) || return 0
  [ -z "$zone" ] || echo " --zone=$zone"
}

# Opens what is dropped, in front of the rules that drop it. What opens is stamped, and lasts until
# `close_firewall`: a reload or a reboot removes it, and the guard or the next start of the agent
# opens again. No file of a firewall is changed.
open_firewall() {
  local drops line fields
  [ "${FIREWALL:-}" = manage ] || return 0
  drops=$(filters | dropped "$(needed)")
  [ -n "$drops" ] || return 0
  while read -r line; do
    read -ra fields <<<"$line"
    open_one "${fields[@]}" && echo "opened the firewall (${fields[0]}) for $(connection "$line")"
  done <<<"$drops"
  drops=$(filters | dropped "$(needed)")
  if [ -z "$drops" ]; then
    rm -f "$RULES/closed"
  elif [ ! -e "$RULES/closed" ]; then
    touch "$RULES/closed" # it is said once, not in every round
    check_firewall >&2
  fi
}

# Prints a line for each connection of the mesh that a firewall drops although it is to be opened.
check_firewall() {
  local line
  [ "${FIREWALL:-}" = manage ] || return 0
  filters | dropped "$(needed)" | while read -r line; do
    echo "the firewall ($(cut -d ' ' -f 1-4 <<<"$line")) drops $(connection "$line")"
  done
}

open_one() { # firewall program table chain port original
  local zone rule
  case $1 in
  firewalld)
    zone=$(zone_option)
    # shellcheck disable=SC2086 # an option, or nothing
    firewall-cmd --quiet $zone --add-port="$5/tcp" && echo "$zone --remove-port=$5/tcp" >>"$OPENED"
    ;;
  nftables) nft "$(nft_rule "${@:3}")" ;;
  *)
    rule=$(iptables_rule "${@:4}")
    # It is there already where another program has put its own rules before it since.
    for _ in 1 2 3; do
      # shellcheck disable=SC2086 # words
      "$2" --wait=5 -t "${3#*/}" ${rule/#-I/-D} 2>/dev/null || break
    done
    printf '*%s\n%s\nCOMMIT\n' "${3#*/}" "$rule" | "$2-restore" --noflush --wait=5
    ;;
  esac
}

# Prints what a line of `dropped` is about.
connection() { # line
  local fields
  read -ra fields <<<"$1"
  if [ "${fields[4]}" = "${fields[5]}" ]; then
    echo "port ${fields[4]}"
  else
    echo "port ${fields[4]}, at which redirected connections to ${fields[5]} arrive"
  fi
}

# Deletes what opens, of all programs.
close_firewall() {
  local name text options
  for name in $(programs); do
    text=$("$name-save" 2>/dev/null | awk -v stamp="$STAMP" '
      /^\*/ { table = $0 }
      /^-A / && $0 ~ "--comment \"?" stamp "\"?( |$)" {
        sub(/^-A/, "-D"); text[table] = text[table] $0 "\n" }
      END { for (table in text) printf "%s\n%sCOMMIT\n", table, text[table] }')
    [ -z "$text" ] || restore "$name" "$text"
  done
  text=$(nft --handle list ruleset 2>/dev/null | awk -v stamp="comment \"$STAMP\"" '
    /^table / { table = $2 " " $3 }
    /^\tchain / { chain = $2 }
    /^\t\t/ && index($0, stamp) { print "delete rule", table, chain, "handle", $NF }')
  [ -z "$text" ] || printf '%s\n' "$text" | nft -f -
  [ -e "$OPENED" ] || return 0
  while read -r options; do
    # shellcheck disable=SC2086 # options
    firewall-cmd --quiet $options
  done <"$OPENED"
  rm -f "$OPENED"
} 2>/dev/null
