# Redirects this machine's traffic to the agent. The units run this as root, with the agent's
# environment. The agent fails every DNS query until it has the name table from istiod. Until then
# DNS queries bypass the agent, so a machine that boots while istiod is down still resolves names.
# `redirect.sh on`, before the agent: Istio's redirection rules, and rules by which DNS bypasses it.
# `redirect.sh dns-on`, after its start: ends the bypass, in the background, once it has the table.
# `redirect.sh off`, before the start and after the end: removes all rules of Istio.
# `redirect.sh ssh-port`, in a join: stores the ports by which SSH came, so that they stay open.
# `redirect.sh saved`: prints the files from which a boot would load rules of the redirection.
# Other programs flush rules. So `on` records the rules as they were made, and the guard
# (redirect_guard.sh) compares them with the rules that are there.
# With the redirection come and go the openings of firewalls (redirect_firewall.sh).
AGENT=/opt/istio-vm-mesh/current/usr/local/bin/pilot-agent
STATE=/var/lib/istio-vm-mesh
RULES=/run/istio-vm-mesh-redirect # a file for each program that has rules of ours
LOCK=/run/istio-vm-mesh-redirect.lock
WITHDRAWN=/run/istio-vm-mesh-withdrawn
PROBE=/run/istio-vm-mesh-probe.env # the agent's unit reads it
AGENT_PORT=15020                   # of the agent's HTTP server
SSH_CONFIGURATION=/etc/ssh
# From which hosts load rules of iptables, nftables, ufw and firewalld.
SAVED_RULES=(/etc/iptables* /etc/sysconfig/*tables* /etc/nftables* /etc/ufw /etc/firewalld
  /etc/network /var/lib/{ip,ip6,nf}tables)
REMOVAL_S=20 # in which the removal of rules is tried again

# Which rules are Istio's: those in its chains, and those that lead to them. Chains of istio-cni
# have other names. A comment of another program's rule is not read.
CHAIN='ISTIO_(INBOUND|IN_REDIRECT|OUTPUT|OUTPUT_DNS|REDIRECT|DROP|DIVERT|TPROXY)'
OURS="
function is_chain(name) {
  return name ~ /^$CHAIN\$/
}
"'
function is_ours(chain, rule, words, count, i) {
  if (is_chain(chain)) return 1
  gsub(/"[^"]*"/, "", rule)
  count = split(rule, words, " ")
  for (i = 1; i < count; i++)
    if (words[i] ~ /^(-j|-g|jump|goto)$/ && is_chain(words[i + 1])) return 1
  return 0
}
function rest(text, words) { # of a text, without its first words
  for (; words > 0; words--) sub(/^[^ ]+ /, "", text)
  return text
}
'

locked() { # function
  (
    flock 9
    "$@"
  ) 9>"$LOCK"
}

# Prints the iptables programs of this host, those of both backends: rules of ours may be in either.
# Where a host has no names with a backend, the plain ones. PROGRAMS_HERE has them where they were
# looked for already.
PROGRAMS_HERE=''
programs() {
  local family name is_named
  if [ -n "$PROGRAMS_HERE" ]; then
    echo "$PROGRAMS_HERE"
    return
  fi
  for family in iptables ip6tables; do
    is_named=1
    for name in $family-legacy $family-nft; do
      if command -v "$name-save" >/dev/null; then echo "$name"; else is_named=''; fi
    done
    [ -z "$is_named" ] || continue
    case $($family --version 2>/dev/null) in
    *nf_tables*) name=$family-nft ;;
    *) name=$family-legacy ;;
    esac
    if ! command -v $name-save >/dev/null && command -v $family-save >/dev/null; then
      echo $family
    fi
  done
}

# Prints every rule that a program shows, as `<table> <chain> <rule>`, and every chain, as
# `<table> :<chain>`. iptables does not show a table in which another program has rules of nftables'
# own kinds. Such a table is marked `<table> =native`, and its rules are those of `nft`. SAVED has
# what a program shows where that was read already.
declare -gA SAVED=()
read_rules() { # program
  local text table
  text=${SAVED[$1]-$("$1-save" 2>/dev/null)} || return
  [ -n "$text" ] || return 0
  awk '/^\*/ { table = substr($1, 2) }
    /^:/ { print table, $1 }
    /^-A / { print table, substr($0, 4) }' <<<"$text"
  [[ $text == *" is incompatible"* ]] || return 0
  while read -r table; do
    echo "$table =native"
    list_native "$1" "$table" || return
  done < <(sed -n "s/^# Table .\([a-z]*\). is incompatible.*/\1/p" <<<"$text")
}

# As above, of one table.
list_native() { # program table options
  local text
  text=$(nft "${@:3}" list table "$(nft_family "$1")" "$2" 2>/dev/null) || return
  awk -v table="$2" '/^\tchain / { chain = $2; print table, ":" chain }
    /^\t\t[^\t ]/ && !/^\t\t(type|comment) / {
      sub(/^\t\t/, "")
      sub(/ ?counter packets [0-9]+ bytes [0-9]+/, "")
      sub(/^ /, "")
      print table, chain, $0
    }' <<<"$text"
}

# Changes rules by a text, through a pipe. A here-string can be a file. SELinux's policy keeps the
# iptables and nft of a unit from reading it.
restore() { # program text
  printf '%s\n' "$2" | "$1-restore" --noflush --wait=5
}

nft_family() { # program
  case $1 in
  ip6*) echo ip6 ;;
  *) echo ip ;;
  esac
}

# Prints Istio's rules and chains of those on standard input.
ours() {
  awk "$OURS"'$2 == "=native" || is_chain(substr($2, 2)) || is_ours($2, rest($0, 2))'
}

# Prints what brings the rules on standard input to the wanted ones, as input of iptables-restore,
# or nothing. Rules of others stay where they are, in Istio's chains too; the rules that lead to
# these stand before them in the table nat. Of a table of `nft`, which iptables-restore cannot
# compare, it prints `again`.
difference() { # file of the wanted rules, file of rules that are ours otherwise
  # shellcheck disable=SC2016 # awk expands them
  awk "$OURS"'
    part == "present" && $2 == "=native" { native[$1] = 1 }
    part == "wanted" && $2 == "=native" { recorded_native[$1] = 1 }
    $2 == "=native" { next }
    part != "present" && !($1 in tables) { tables[$1] = 1; order[++table_count] = $1 }
    $2 ~ /^:/ {
      if (part == "present") exists[$1, substr($2, 2)] = 1
      else if (part == "wanted") chains[$1, ++chain_count[$1]] = substr($2, 2)
      next
    }
    part == "wanted" {
      if (!(($1, $2) in numbers)) used[$1, ++used_count[$1]] = $2
      wanted[$1, $2, ++numbers[$1, $2]] = rest($0, 2)
      is_wanted[$0] = 1
    }
    part == "other" && !($0 in is_wanted) { unwanted[$0] = 1 }
    part == "present" {
      if ($0 in unwanted) deleted[$1, ++deleted_count[$1]] = rest($0, 1)
      else present[$1, $2, ++present_count[$1, $2]] = rest($0, 2)
    }
    function insert(table, chain, i, j, k, at, shift, text, place) {
      for (i = 1; i <= numbers[table, chain]; i++) {
        for (k = j + 1; k <= present_count[table, chain]; k++)
          if (present[table, chain, k] == wanted[table, chain, i]) { at[i] = j = k; break }
      }
      for (i = 1; i <= numbers[table, chain]; i++) {
        if (i in at) continue
        for (k = i + 1; k <= numbers[table, chain] && !(k in at); k++);
        place = k in at ? "-I " chain " " at[k] + shift++ : "-A " chain
        text = text place " " wanted[table, chain, i] "\n"
      }
      return text
    }
    # Calico puts its own rules first, again and again. They lead to none of the host itself.
    function lead(table, chain, i, k, text, is_first, before) {
      is_first = 1
      while (present[table, chain, before + 1] ~ /(^| )-j cali-/) before++
      for (i = 1; i <= numbers[table, chain]; i++)
        if (present[table, chain, before + i] != wanted[table, chain, i]) is_first = 0
      if (is_first) return ""
      for (i = numbers[table, chain]; i > 0; i--) {
        for (k = 1; k <= present_count[table, chain]; k++)
          if (present[table, chain, k] == wanted[table, chain, i])
            text = text "-D " chain " " wanted[table, chain, i] "\n"
        text = text "-I " chain " " wanted[table, chain, i] "\n"
      }
      return text
    }
    function bring(table, chain) {
      return table == "nat" && !is_chain(chain) ? lead(table, chain) : insert(table, chain)
    }
    END {
      for (t = 1; t <= table_count; t++) {
        table = order[t]
        text = ""
        for (i = 1; i <= chain_count[table]; i++)
          if (!((table, chains[table, i]) in exists)) text = text ":" chains[table, i] " - [0:0]\n"
        for (i = 1; i <= deleted_count[table]; i++) text = text "-D " deleted[table, i] "\n"
        for (i = 1; i <= used_count[table]; i++) text = text bring(table, used[table, i])
        if (native[table] != recorded_native[table] || (native[table] && text)) print "again"
        else if (text) printf "*%s\n%sCOMMIT\n", table, text
      }
    }' part=wanted "$1" part=other "$2" part=present -
}

# Deletes Istio's rules and chains of one program. Fails where there are none.
remove() { # program
  local rules script table
  has_chains "$1" || return
  rules=$(read_rules "$1" | ours)
  # shellcheck disable=SC2016 # awk expands them
  script=$(awk "$OURS"'
    { if (!($1 in rules)) order[++count] = $1 }
    $2 == "=native" { native[$1] = 1 }
    $2 ~ /^:/ { flushed[$1] = flushed[$1] "-F " substr($2, 2) "\n"
      dropped[$1] = dropped[$1] "-X " substr($2, 2) "\n" }
    { rules[$1] = rules[$1] ($2 ~ /^[:=]/ || is_chain($2) ? "" : "-D " rest($0, 1) "\n") }
    END { for (i = 1; i <= count; i++) if (!(order[i] in native))
      printf "*%s\n%s%s%sCOMMIT\n", order[i], rules[order[i]], flushed[order[i]], dropped[order[i]]
    }' <<<"$rules")
  [ -z "$script" ] || restore "$1" "$script"
  [[ $rules == *" =native"* ]] || return 0
  while read -r table; do
    list_native "$1" "$table" --handle | ours | awk -v table="$(nft_family "$1") $table" "$OURS"'
      $2 ~ /^:/ { flushed = flushed "flush chain " table " " substr($2, 2) "\n"
        dropped = dropped "delete chain " table " " substr($2, 2) "\n" }
      !/ :/ && !is_chain($2) { print "delete rule", table, $2, "handle", $NF }
      END { printf "%s%s", flushed, dropped }' | nft -f -
  done < <(sed -n 's/ =native$//p' <<<"$rules")
  return 0
}

# Makes Istio's rules and records them, with and without those by which DNS queries bypass the
# agent: in front of the redirection, and in front of the conntrack zones that keep its queries
# apart. Both are there afterwards. IPv6 is redirected wherever the machine has an address of it:
# where Envoy does not listen on IPv6, its connections are refused. Connections of the proxy's user
# and group are not redirected. By default `istio-iptables` takes the group with the number of the
# user, and a user of /etc/passwd alone. Callers write the reason to `again` before: the guard makes
# the rules again where that was interrupted.
make() {
  local program rules open names failed=''
  local FORCE_IPTABLES_BINARY=${FORCE_IPTABLES_BINARY:-$(backend)}
  name_servers >"$RULES/servers"
  open=$(open_ports "$(rules_of_ports)")
  names=("ip"{,6}"tables${FORCE_IPTABLES_BINARY:+-$FORCE_IPTABLES_BINARY}")
  leave_connections -I "${names[@]}"
  add_rules "$open" || failed=1
  leave_connections -D "${names[@]}"
  [ -z "$failed" ] || return
  for program in "${REDIRECTING[@]}"; do
    rules=$(read_rules "$program" | ours)
    bypass -I "$program" <<<"$rules" || return
    read_rules "$program" | ours >"$RULES/$program.bypass"
    echo "$rules" >"$RULES/$program"
  done
  rm -f "$RULES/again"
}

# REDIRECTING has the programs whose rules these are, then.
add_rules() { # open ports
  local program
  REDIRECTING=()
  PROXY_UID=$(id -u istio-proxy 2>/dev/null) PROXY_GID=$(id -g istio-proxy 2>/dev/null) \
  DUAL_STACK=true ISTIO_EXCLUDE_INTERFACES='' ISTIO_LOCAL_EXCLUDE_PORTS=$1 \
  FORCE_IPTABLES_BINARY=$FORCE_IPTABLES_BINARY \
    with_captured_servers "$AGENT" istio-iptables || return
  for program in $(programs); do
    has_chains "$program" || continue
    narrow "$program" || return
    REDIRECTING+=("$program")
  done
}

# Keeps connections as they are that are open before the rules, until `narrow` has rules for that.
leave_connections() { # -I or -D, programs
  local program rule="-p tcp ! --syn -m comment --comment $STAMP -j ACCEPT"
  for program in "${@:2}"; do
    printf '%s\n' '*nat' "$1 PREROUTING $rule" "$1 OUTPUT $rule" COMMIT |
      "$program-restore" --noflush --wait=5 2>/dev/null || true
  done
}

# Prints the name servers that the agent queries. It reads them when it starts.
name_servers() {
  awk '$1 == "nameserver" && NF > 1 { print $2 }' /etc/resolv.conf 2>/dev/null
}

# Prints the name servers to which queries are redirected, or the others. Where one is of this
# machine, such as dnsmasq, those of other machines are not: it may query them, and the agent
# queries it. Link-local ones cannot be redirected to ::1. What is sent to 0.0.0.0 goes to
# 127.0.0.1.
reached_servers() { # captured or others
  ip -o address show 2>/dev/null | awk -v wanted="$1" '
    part == "addresses" { sub(/\/.*/, "", $4); own[$4] = 1; next }
    $1 != "nameserver" || NF < 2 { next }
    { server = $2 == "0.0.0.0" ? "127.0.0.1" : $2 == "::" ? "::1" : $2; servers[++count] = server }
    server ~ /^(127\.|::1$)/ || server in own { own[server] = has_own = 1 }
    END {
      for (i = 1; i <= count; i++) {
        is_captured = servers[i] !~ /%/ && (!has_own || servers[i] in own)
        if (wanted == (is_captured ? "captured" : "others")) print servers[i]
      }
    }' part=addresses - part=servers /etc/resolv.conf 2>/dev/null
}

# Runs `istio-iptables`, which reads /etc/resolv.conf.
with_captured_servers() { # command
  if ! needs_other_servers; then
    "$@"
    return
  fi
  reached_servers captured | sed 's/^/nameserver /' >"$RULES/resolv.conf"
  with_servers_of "$RULES/resolv.conf" "$@"
}

# Queries are redirected to other name servers than those in /etc/resolv.conf.
needs_other_servers() {
  [ "${ISTIO_META_DNS_CAPTURE:-}" = true ] &&
    [ "$(reached_servers captured)" != "$(name_servers)" ]
}

# Runs a command for which a file is /etc/resolv.conf.
with_servers_of() { # file command
  # shellcheck disable=SC2016 # the inner bash expands them
  unshare --mount bash -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$@"
}

has_other_servers() {
  local servers asked
  [ "${ISTIO_META_DNS_CAPTURE:-}" = true ] || return
  asked=$(cat "$RULES/servers" 2>/dev/null) || return
  servers=$(name_servers)
  [ -n "$servers" ] && [ "$servers" != "$asked" ]
}

# Prints the backend of this host's own `iptables`, which programs such as Docker use: an exception
# from their rules holds in the same backend alone. `istio-iptables` by itself takes legacy iptables
# wherever it has a table, and its first run leaves one there. Prints nothing where a family has no
# such table.
backend() {
  local name=legacy
  case $(iptables --version 2>/dev/null) in *nf_tables*) name=nft ;; esac
  "iptables-$name" -t nat -S >/dev/null 2>&1 || return 0
  "ip6tables-$name" -t nat -S >/dev/null 2>&1 || ! can_redirect_ipv6 || return 0
  echo $name
}

has_chains() { # program
  local rules pattern=$'\n'"([a-z]+ )?:$CHAIN"$'[ \n]'
  rules=${SAVED[$1]-$("$1-save" 2>/dev/null)}
  [[ $rules != *" is incompatible"* ]] || rules=$(read_rules "$1")
  [[ $'\n'$rules$'\n' =~ $pattern ]]
}

# Narrows Istio's rules to what is of this machine, and puts them first.
# - What is forwarded to a container or a VM is not addressed to this machine.
# - Excluded interfaces are left out in Istio's chains. `istio-iptables` would end the chains of all
#   programs for them, and leave out DNS.
# - What goes to containers and VMs of this machine leaves no machine: docker-proxy's connections.
# - Envoy reaches the application by the machine's own address. A rule by which Docker publishes a
#   port would send that connection out of the host, with an address of loopback.
# - Such a rule in front of Istio's would lead to the container without the agent.
# - A connection keeps the address that it came for. REDIRECT would set the interface's first one.
#   Then rules of routing by address would lead its answers elsewhere, and an interface without an
#   address would redirect nothing.
# - Connections that are open stay as they are. Where no rule needed it before, the kernel begins to
#   track connections with these rules, and takes the next packet of each for its first.
narrow() { # program
  local loopback=127.0.0.6/32 name
  case $1 in ip6*) loopback=::6/128 ;; esac
  {
    echo '*nat'
    for name in ${ISTIO_EXCLUDE_INTERFACES//,/ }; do
      printf '%s\n' "-I ISTIO_INBOUND -i $name -j RETURN" "-I ISTIO_REDIRECT -o $name -j RETURN"
    done
    for name in $(inner_bridges); do echo "-I ISTIO_REDIRECT -o $name -j RETURN"; done
    printf '%s\n' "-I ISTIO_INBOUND -m addrtype ! --dst-type LOCAL -j RETURN" \
      "-I ISTIO_OUTPUT -o lo -s $loopback -j ACCEPT" \
      "-F ISTIO_IN_REDIRECT" "-A ISTIO_IN_REDIRECT -p tcp -j DNAT --to-destination :$INBOUND_PORT" \
      "-D PREROUTING -p tcp -j ISTIO_INBOUND" "-I PREROUTING -p tcp -j ISTIO_INBOUND" \
      "-D OUTPUT -j ISTIO_OUTPUT" "-I OUTPUT -j ISTIO_OUTPUT" \
      "-I ISTIO_INBOUND -p tcp ! --syn -j RETURN" "-I ISTIO_OUTPUT -p tcp ! --syn -j RETURN" COMMIT
  } | "$1-restore" --noflush --wait=5
}

# Prints the bridges that lead to containers and VMs of this machine alone. The default route does
# not use them, and none of their ports is a device of another kind.
inner_bridges() {
  local name
  while read -r _ name _; do
    [[ $name =~ ^([A-Za-z0-9_.-]+)[:@] ]] || continue
    name=${BASH_REMATCH[1]}
    has_default_route "$name" ||
      ip -d -o link show master "$name" | grep -qvE '\\ +(veth|tun) ' || echo "$name"
  done < <(ip -o link show type bridge 2>/dev/null)
}

has_default_route() { # interface
  [ -n "$(ip -4 route show default dev "$1")$(ip -6 route show default dev "$1")" ]
}

# Leaves out the bridges that came after the rules. A rule of one that is gone does no harm.
add_bridges() { # program
  local name file rule
  for name in $(inner_bridges); do
    rule="ISTIO_REDIRECT -o $name -j RETURN"
    ! grep -qxF -e "nat $rule" -e "nat ISTIO_REDIRECT oifname \"$name\" return" "$RULES/$1" ||
      continue
    echo "connections to $name are not redirected: containers or VMs of this machine are there"
    for file in "$RULES/$1" "$RULES/$1.bypass"; do
      if grep -q '^nat =native' "$file"; then
        sed -i "0,/^nat ISTIO_REDIRECT /s//nat ISTIO_REDIRECT oifname \"$name\" return\n&/" "$file"
      else
        sed -i "0,/^nat ISTIO_REDIRECT /s//nat $rule\n&/" "$file"
      fi
    done
    printf '*nat\n-I %s\nCOMMIT\n' "$rule" | "$1-restore" --noflush --wait=5
  done
}

# Inserts (-I) or deletes (-D) the rules by which DNS bypasses the agent, in the chains on standard
# input. An address family without a resolver has none of them.
bypass() { # -I or -D, program
  # shellcheck disable=SC2016 # awk expands them
  awk -v action="$1" '
    function add(rule) { text[$1] = text[$1] action " " substr($2, 2) " " rule " -j RETURN\n" }
    $1 == "nat" && $2 == ":ISTIO_OUTPUT" { add("-p udp --dport 53"); add("-p tcp --dport 53") }
    $1 == "raw" && $2 == ":ISTIO_OUTPUT_DNS" { add("-p udp --dport 53") }
    $1 == "raw" && $2 == ":ISTIO_INBOUND" { add("-p udp --sport 53") }
    END { for (table in text) printf "*%s\n%sCOMMIT\n", table, text[table] }' |
    "$2-restore" --noflush --wait=5
}

end_bypass() {
  local file program
  for file in "$RULES"/*.bypass; do
    [ -e "$file" ] || continue
    program=${file##*/} program=${program%.bypass}
    bypass -D "$program" <"$RULES/$program"
  done
}

# Brings the rules to the recorded ones. Nothing is recorded while nothing is to be redirected.
repair() {
  local file program
  if [ -e "$RULES/again" ]; then
    make_again "$(cat "$RULES/again")"
    return
  fi
  if lacks_ipv6; then
    make_again "the machine has an address of IPv6 now"
    return
  fi
  for file in "$RULES"/*.bypass; do
    [ -e "$file" ] || continue
    program=${file##*/} program=${program%.bypass}
    repair_program "$program" "$(missing "$program")" || break
    add_bridges "$program"
  done
  ! compgen -G "$RULES/*.bypass" >/dev/null || open_firewall
}

# An address may come after the rules. They are made again once: `ip6tables` may have no table nat.
lacks_ipv6() {
  compgen -G "$RULES/*.bypass" >/dev/null && ! compgen -G "$RULES/ip6*.bypass" >/dev/null &&
    [ ! -e "$RULES/with-ipv6" ] && has_ipv6 && can_redirect_ipv6 && touch "$RULES/with-ipv6"
}

# ::6 is the source of Envoy's connections to the application, which `istio-iptables` adds.
has_ipv6() {
  local addresses
  addresses=$(ip -6 -o address show scope global 2>/dev/null)
  [[ ${addresses//inet6 ::6\/128/} == *" inet6 "* ]]
}

can_redirect_ipv6() {
  local program
  for program in $(programs); do
    case $program in
    ip6*) if "$program" -t nat -S >/dev/null 2>&1; then return; fi ;;
    esac
  done
  return 1
}

missing() { # program
  local rules
  rules=$(read_rules "$1") || {
    echo unreadable
    return
  }
  if [ -e "$RULES/bypassed" ]; then
    difference "$RULES/$1.bypass" "$RULES/$1" <<<"$rules"
  else
    difference "$RULES/$1" "$RULES/$1.bypass" <<<"$rules"
  fi
}

wanted() { # program
  if [ -e "$RULES/bypassed" ]; then echo "$RULES/$1.bypass"; else echo "$RULES/$1"; fi
}

repair_program() { # program difference
  local tables
  case $2 in
  '') [ ! -e "$RULES/complaint-$1" ] || rm -f "$RULES/complaint-$1" ;;
  unreadable) complain "$1" "cannot read the rules of $1: is 'nft' installed?" ;;
  *again*) compare_shapes "$1" || make_again "rules of nftables are in its tables" ;;
  *)
    if restore "$1" "$2"; then
      tables=$(sed -n 's/^\*//p' <<<"$2" | paste -sd ' ')
      ! grep -q '^-[AI]' <<<"$2" ||
        echo "put $(grep -c '^-[AI]' <<<"$2") missing rules of the redirection back ($1: $tables)"
    else
      complain "$1" "cannot put missing rules of the redirection back ($1)"
    fi
    ;;
  esac
}

# The rules of a table of `nft` are only counted where they were recorded as those of iptables.
compare_shapes() { # program
  local file present rules
  file=$(wanted "$1")
  present=$(read_rules "$1")
  rules=$(ours <<<"$present")
  [ "$(shape <"$file")" = "$(shape <<<"$rules")" ] &&
    [ "$(leads <"$file")" = "$(leads <<<"$present")" ] && echo "$rules" >"$file"
}

# Prints the chains of `nat` whose first rule leads to Istio's.
leads() {
  awk "$OURS"'
    $1 == "nat" && $2 !~ /^[:=]/ && !seen[$2]++ && is_ours($2, rest($0, 2)) { print $2 }' | sort
}

shape() {
  awk '$2 != "=native" { print $1, $2 }' | sort | uniq -c
}

# Fails: other programs may have rules now, so the round is over.
make_again() { # reason
  echo "$1" >"$RULES/again"
  remove_all
  make || {
    complain istio-iptables "cannot restore the redirection: $1"
    return 1
  }
  rm -f "$RULES/complaint-istio-iptables"
  [ -e "$RULES/bypassed" ] || end_bypass
  echo "made the redirection again: $1"
  return 1
}

# A problem is printed once, not in every round.
complain() { # program message
  [ "$(cat "$RULES/complaint-$1" 2>/dev/null)" = "$2" ] || echo "$2" >&2
  echo "$2" >"$RULES/complaint-$1"
}

# Prints the ports, the kind and the target of each rule that gives connections another address, as
# rules of containers with published ports do. Those behind the rules of the mesh are of the kind
# `iptables`. Others have the table of nftables, or the other backend's program, whose order
# iptables does not determine. A rule by which connections are not tracked has the target
# `untracked`.
rules_of_ports() {
  local program used=${FORCE_IPTABLES_BINARY:-$(backend)}
  {
    for program in $(programs); do
      echo "program $program"
      read_rules "$program"
    done
    echo program nft
    nft list ruleset
  } 2>/dev/null | awk -v used="$used" "$OURS"'
    $1 == "program" {
      program = $2; family = program ~ /^ip6/ ? "ip6" : "ip"
      is_behind = used == "" || program !~ /-/ || program ~ "-" used "$"
      next
    }
    program != "nft" {
      if ($2 ~ /^:/ && program !~ /-legacy$/) is_shown[family "/" $1 " " substr($2, 2)] = 1
      if ($2 ~ /^[:=]/ || $1 !~ /^(nat|raw)$/ || is_chain($2)) next
      if ($2 == "KUBE-NODEPORTS") sub(/-j KUBE-.*/, "-j DNAT --to-destination kube-proxy")
      kind = is_behind ? "iptables" : program
      sub(/^[^ ]+ [^ ]+ /, "")
    }
    program == "nft" && /^table / { table = $2 "/" $3 }
    program == "nft" && /^\tchain / { chain = $2 }
    program == "nft" && (table " " chain) in is_shown { next }
    program == "nft" { kind = table; sub(/^[ \t]+/, "") }
    {
      target = "-"
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

# Ports on which a connection from outside is not redirected: those of the settings, and SSH's.
# SSH's are the port of the join's connection, and those that sshd is configured with or listens on.
# Rules of this host may lead more ports to one of SSH's.
open_ports() { # what rules_of_ports printed
  local ports
  ports=$(
    # shellcheck disable=SC2086 # words
    {
      printf '%s\n' 22 ${ISTIO_LOCAL_EXCLUDE_PORTS//,/ }
      ssh_listeners
      systemctl show --property=Listen ssh.socket sshd.socket
    } 2>/dev/null | sed -nE -e '/^[0-9]+$/p' -e 's/^Listen=.*[:=]([0-9]+) \(Stream\)$/\1/p' \
      -e 's/^[[:space:]]*Port[[:space:]="]+([0-9]+).*/\1/Ip' \
      -e 's/^[[:space:]]*ListenAddress[[:space:]="]+//I; T' \
      -e 's/^(\[[^]]*\]|[^][:space:]:]+):([0-9]+)([[:space:]"].*)?$/\2/p' \
      - "$STATE/ssh-port" "$SSH_CONFIGURATION"/{sshd_config,sshd_config.d/*.conf} 2>/dev/null |
      sort -nu
  )
  [ -z "$1" ] || ports=$({ echo "$ports" && ports_to "${ports//$'\n'/ }" <<<"$1"; } | sort -nu)
  echo "${ports//$'\n'/,}"
}

# Prints the ports that SSH servers listen on. Their sessions listen for clients that forward a port
# or X11: on loopback, as sshd-session (OpenSSH 9.8), or as a child of the server. A child that was
# just started has the server's socket, too, and may stand before or behind the server in a line.
ssh_listeners() {
  local address users
  while read -r _ _ _ address _ users; do
    [[ $address != @(127.*|'[::1]'*) ]] || continue
    while [[ $users =~ \"(sshd|dropbear)\",pid=([0-9]+)(.*) ]]; do
      users=${BASH_REMATCH[3]}
      if is_ssh_server "${BASH_REMATCH[2]}"; then
        echo "${address##*:}"
        break
      fi
    done
  done < <(ss --no-header --tcp --listening --numeric --processes)
}

# Whether a process of SSH is no child of another one.
is_ssh_server() { # pid
  local parent='' name=''
  read -r _ _ _ parent _ <"/proc/$1/stat"
  read -r name <"/proc/$parent/comm"
  [[ $name != @(sshd|dropbear) ]]
}

# Prints the ports of those lines of rules_of_ports that lead to a port of this machine.
ports_to() { # ports, with blanks between
  awk -v wanted=" $1 " '
    part == "addresses" { sub(/\/.*/, "", $4); own[$4] = 1; next }
    {
      port = address = $3
      sub(/.*:/, "", port); gsub(/[][]/, "", address)
      if (!sub(/:[^:]*$/, "", address)) address = ""
      if (!index(wanted, " " port " ")) next
      if (address != "" && address !~ /^(127\.|::1$)/ && !(address in own)) next
      count = split($1, parts, ",")
      for (i = 1; i <= count; i++) {
        last = split(parts[i], ends, "-")
        if (ends[last] - ends[1] > 100) continue
        for (each = ends[1] + 0; each <= ends[last] + 0; each++) print each
      }
    }' part=addresses <(ip -o address show 2>/dev/null) part=rules -
}

is_own() { # address
  [[ $1 == 127.* || $1 == ::1 || $1 == '[::1]' ]] || is_local "$1"
}

# Stores the ports of this SSH connection: sudo removes the variable that sshd set. A program of
# this host, such as sslh, may pass connections on to sshd. Then it is the program's ports that stay
# open, but those of the workload. A session of SSH does so where this host is a jump host.
store_ssh_port() {
  local pid=$$ variable
  while [ "${pid:-0}" -gt 1 ]; do
    while IFS= read -r -d '' variable; do
      [[ $variable == SSH_CONNECTION=?* ]] || continue
      # shellcheck disable=SC2086 # words
      ssh_ports ${variable#*=} >"$STATE/ssh-port"
      return
    done <"/proc/$pid/environ"
    read -r _ pid < <(grep '^PPid:' "/proc/$pid/status")
  done
}

ssh_ports() { # client, its port, address, port
  local name
  echo "$4"
  is_own "${1#::ffff:}" || return 0
  name=$(ss --no-header --tcp --numeric --processes state established \
    "( sport = :$2 and dport = :$4 )" | sed -nE 's/.*\(\("([^"]+)".*/\1/p' | head -n 1)
  [[ -n $name && $name != @(sshd*|dropbear) ]] || return 0
  ss --no-header --tcp --listening --numeric --processes |
    sed -nE -e '/^([^ ]+ +){3}(127\.|\[::1\])/d' \
      -e "/\"$name\"/s/^([^ ]+ +){3}[^ ]*:([0-9]+) .*/\2/p" | sort -nu |
    grep -vxF "$(workload_ports)"
}

# Another program may hold the lock of iptables, or change its rules meanwhile. Rules that are left
# lead to an agent that has ended.
remove_all() {
  local program end=$((SECONDS + REMOVAL_S))
  rm -rf "$RULES"/ip*
  for program in $(programs); do
    [[ $("$program-save" -t nat 2>/dev/null) != *"$STAMP"* ]] || leave_connections -D "$program"
    while remove "$program" && has_chains "$program"; do
      if [ $SECONDS -ge $end ]; then
        echo "cannot remove the rules of the redirection ($program)" >&2
        break
      fi
      sleep 0.2
    done
  done
}

# The agent calls its probe at INSTANCE_IP. An address that is translated before the machine is on
# none of its interfaces. The source of the call, 127.0.0.6, cannot reach it. The variable is the
# one of `istioctl x workload entry configure --externalIP`.
set_probe_address() {
  rm -f "$PROBE"
  [ -z "${INSTANCE_IP:-}" ] || is_local "$INSTANCE_IP" ||
    echo REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION=true >"$PROBE"
}

is_local() { # address
  # Behind the address of a tunnel there is its peer.
  local pattern=" inet6? ${1//./\\.}[/ ]"
  [[ $(ip -o address show 2>/dev/null) =~ $pattern ]]
}

turn_on() {
  mkdir -p "$RULES"
  set_probe_address
  : >"$RULES/bypassed"
  echo "its start was interrupted" >"$RULES/again"
  make || return
  open_firewall
  return 0
}

# There may be none: then what removes them has nothing to look for.
turn_off() {
  rm -rf "$RULES"
  if has_traces; then
    remove_all
    close_firewall
  fi
  ip -6 address delete ::6/128 dev lo 2>/dev/null || true
}

# Whether any rule of this host may be of the redirection, or open a firewall for it.
has_traces() {
  local program
  [ ! -e "$OPENED" ] || return 0
  {
    for program in $(programs); do "$program-save"; done
    nft list ruleset
  } 2>/dev/null | grep -qE "ISTIO_|$STAMP"
}

turn_dns_on() {
  [ -e "$RULES/bypassed" ] || return 0
  rm -f "$RULES/bypassed"
  end_bypass
}

# Whether the agent has the name table. bash sends the request, which is repeated several times a
# second while an agent starts. curl takes ten times as much of a processor.
has_names() (
  exec 3<>"/dev/tcp/127.0.0.1/$AGENT_PORT" || exit
  printf 'GET /debug/ndsz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
  IFS= read -r -t 2 -u 3 line && [[ $line == 'HTTP/1.1 200 '* ]]
) 2>/dev/null

redirect_dns() {
  local delay=0.3
  until has_names; do
    sleep $delay
    [ $SECONDS -lt 60 ] || delay=1
  done
  locked turn_dns_on
}

# Prints the files from which a boot would load rules of the redirection. Nothing listens for what
# they redirect, once the machine has left.
saved_rules() {
  grep -rlsE -e '[: ]ISTIO_(INBOUND|IN_REDIRECT|OUTPUT|OUTPUT_DNS|REDIRECT)( |$)' \
    -e 'comment "?istio-vm-mesh"?( |$)' -e 'table inet istio_vm_mesh' "${SAVED_RULES[@]}" | sort
}

# Removes rules of the redirection that another program loaded while nothing is to be redirected.
remove_stale() {
  local program
  [ ! -d "$RULES" ] && has_traces || return 0
  for program in $(programs); do
    has_chains "$program" || continue
    echo "removes rules of the redirection that another program loaded ($program)"
    remove_all
  done
}

# Prints a line for each program whose rules are not there.
check() {
  local file program count text
  compgen -G "$RULES/*.bypass" >/dev/null || echo "no traffic is redirected"
  for file in "$RULES"/*.bypass; do
    [ -e "$file" ] || continue
    program=${file##*/} program=${program%.bypass}
    text=$(missing "$program")
    count=$(grep -c '^-[AI]' <<<"$text")
    case $text in
    '') ;;
    unreadable) echo "the rules of $program cannot be read" ;;
    *again*) compare_shapes "$program" || echo "rules of $program are missing" ;;
    *) [ "$count" = 0 ] || echo "$count rules of $program are missing" ;;
    esac
  done
  check_firewall
  ! has_other_servers ||
    echo "the name servers in /etc/resolv.conf are others than those that the agent asks"
  saved_rules |
    sed 's/$/ has rules of the redirection, which a boot after the leave would bring back/'
}

main() { # on, dns-on, off, ssh-port or saved
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR=/run
  # shellcheck source=/dev/null
  . "${BASH_SOURCE[0]%/*}/redirect_firewall.sh"
  case $1 in on | off) PROGRAMS_HERE=$(programs) ;; esac
  case $1 in
  on)
    rm -f "$WITHDRAWN"
    locked turn_on || exit
    ;;
  dns-on) redirect_dns & ;;
  off) locked turn_off ;;
  ssh-port) store_ssh_port ;;
  saved) saved_rules ;;
  esac
  exit 0
}

if ! (return 0 2>/dev/null); then main "$@" </dev/null; fi
