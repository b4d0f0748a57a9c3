# Keeps the redirection of redirect.sh, and closes the captured ports where nothing redirects them.
# The unit runs it as root, with the agent's environment, from the boot until the machine leaves.
# `redirect_guard.sh watch`: compares the rules with the recorded ones, and puts missing ones back.
#   With FAIL_CLOSED it holds a table of nftables that another process cannot change or flush.
# `redirect_guard.sh ready`: waits until that table is there.
# `redirect_guard.sh check`: prints what is missing, or nothing.
# `redirect_guard.sh possible`, in a join: fails with the cause where a host has no such tables.
INTERVAL_S=5
PORTS_EVERY=12    # rounds
COMPARE_EVERY=12  # rounds
SERVERS_AFTER=12  # rounds, in which other name servers stay
SERVERS_SPREAD=48 # rounds, over which the machines of a workload are spread then
TABLE=istio_vm_mesh
AGENT_PORTS=15006,15008 # redirected connections, and those of HBONE, which are not redirected

# Starts a process that holds tables. With its end they are gone, and the command runs.
hold() { # command
  exec {HOLDER}> >(
    HOME=/dev/null nft --interactive >/dev/null
    "$@"
  )
}

# The unit starts it again.
end_guard() {
  kill $$
}

# Prints the table, as one transaction. A connection that was redirected arrives at port 15006. It
# drops nothing but the first packet of a TCP connection, so those that are established go on.
# Connections of the machine to itself come by lo, also to its other addresses. A port that is
# published for a container leads out of this machine: it is known by what was addressed.
table() {
  local interfaces='"lo"' name addresses open_ports
  local first='tcp flags & (fin | syn | rst | ack) == syn'
  open_ports="$AGENT_PORTS, $(open_ports "$(rules_of_ports)")"
  for name in ${ISTIO_EXCLUDE_INTERFACES//,/ }; do interfaces+=", \"$name\""; done
  printf '%s; ' \
    "table inet $TABLE { flags owner; chain input { type filter hook input priority -1; }; \
      chain forward { type filter hook forward priority -1; }; }" \
    "flush chain inet $TABLE input" \
    "add rule inet $TABLE input iifname { $interfaces } accept" \
    "add rule inet $TABLE input tcp dport { $open_ports } accept" \
    "add rule inet $TABLE input $first counter drop" \
    "flush chain inet $TABLE forward" \
    "add rule inet $TABLE forward iifname { $interfaces } accept" \
    "add rule inet $TABLE forward $first ct status dnat \
      ct original proto-dst { $open_ports } accept"
  for name in ip ip6; do
    addresses=$(local_addresses $name)
    [ -z "$addresses" ] || printf '%s; ' "add rule inet $TABLE forward $first ct status dnat \
      ct original $name daddr { $addresses } counter drop"
  done
}

# Prints this machine's addresses of a family.
local_addresses() { # ip or ip6
  local family=-4
  [ "$1" = ip ] || family=-6
  ip $family -o address show 2>/dev/null | awk '{ sub(/\/.*/, "", $4) }
    !seen[$4]++ { text = text (text == "" ? "" : ",") $4 }
    END { print text }'
}

# The ports of SSH may change, and the addresses.
close_ports() {
  local text
  text=$(table)
  [ "$text" != "$TABLE_TEXT" ] || return 0
  TABLE_TEXT=$text
  echo "$text" >&"$HOLDER"
}
TABLE_TEXT=''

has_other_addresses() {
  local addresses
  addresses=$(local_addresses ip && local_addresses ip6)
  [ "$addresses" != "$ADDRESSES" ] || return
  ADDRESSES=$addresses
}
ADDRESSES=''

watch() {
  local round
  [ -z "${FAIL_CLOSED:-}" ] || hold end_guard
  for ((round = 0; ; round++)); do
    [ -z "${FAIL_CLOSED:-}" ] || ! { [ $((round % PORTS_EVERY)) = 0 ] || has_other_addresses; } ||
      close_ports
    compare_rules "$round"
    renew_agent
    sleep "$INTERVAL_S"
  done
}

# Compares rules with the recorded ones, and firewalls with what must come in. With thousands of
# rules that takes long, so a round in which nothing has changed only finds that out. A comparison
# that ended badly is repeated.
compare_rules() { # round
  local state
  [ $(($1 % COMPARE_EVERY)) != 0 ] || PROGRAMS_HERE=''
  [ -n "$PROGRAMS_HERE" ] || PROGRAMS_HERE=$(programs)
  count_changes
  state=$(state_of_host)
  [ "$state" != "$STATE_SEEN" ] || [ $(($1 % COMPARE_EVERY)) = 0 ] || return 0
  if [ -d "$RULES" ]; then locked repair; else locked remove_stale; fi
  if compgen -G "$RULES/complaint-*" >/dev/null; then state=''; fi
  STATE_SEEN=$state
}
STATE_SEEN=''

# Counts the rounds in which nftables changed, by what nft reports. Of what changes while nft starts
# there is no report, so that round and the next one count.
count_changes() {
  local status=0
  command -v nft >/dev/null || return 0
  if [ -z "$REPORTS" ]; then
    exec {REPORTS}< <(exec nft monitor 2>/dev/null)
    UNREPORTED=2
  fi
  if read -r -t 0 -u "$REPORTS"; then
    read -r -t 0.2 -N 1000000 -u "$REPORTS" || status=$?
    CHANGES=$((CHANGES + 1))
  elif [ $UNREPORTED -gt 0 ]; then
    CHANGES=$((CHANGES + 1))
  fi
  [ $UNREPORTED = 0 ] || UNREPORTED=$((UNREPORTED - 1))
  [ $status != 1 ] || { exec {REPORTS}<&- && REPORTS=''; } # nft has ended
}
REPORTS='' CHANGES=0 UNREPORTED=0

# Prints what a comparison depends on: changes of nftables, other rules without counters,
# interfaces, addresses, routes, and when something was recorded.
state_of_host() {
  local program
  {
    echo "$CHANGES"
    for program in $PROGRAMS_HERE; do
      [[ -n $REPORTS && $program == *-nft ]] || "$program-save"
    done
    ip -o link show
    ip -o address show
    ip route show default
    ip -6 route show default
    ls --full-time "$RULES"
  } | sed -E '/^# (Generated|Completed)/d; s/^(:.*) \[.*/\1/; s/valid_lft.*//'
} 2>/dev/null

# The agent queries the name servers that it read when it started, and queries to these are
# redirected. So it starts again once the host has others: it is deregistered first, as at every
# stop.
renew_agent() {
  if ! has_other_servers; then
    ROUNDS_OF_OTHERS=0
  elif [ $((++ROUNDS_OF_OTHERS)) = "$(renewal_round)" ]; then
    echo "this host has other name servers in /etc/resolv.conf: the agent starts again"
    systemctl try-restart --no-block istio-vm-mesh
  fi
}
ROUNDS_OF_OTHERS=0

# Prints the round in which the agent starts again, by the machine's name. Other machines of the
# workload may get the same name servers at once, and a machine sees no slots of its workload.
renewal_round() {
  local sum
  read -r sum _ < <(cksum <<<"${POD_NAME:-}")
  echo $((SERVERS_AFTER + sum % SERVERS_SPREAD))
}

is_closed() { # table
  nft list table inet "$1" >/dev/null 2>&1
}

wait_closed() { # table
  for _ in $(seq 50); do
    if is_closed "$1"; then return; fi
    sleep 0.1
  done
  return 1
}

ready() {
  [ -z "${FAIL_CLOSED:-}" ] || wait_closed "$TABLE" || {
    echo "cannot close the redirected ports: 'nft list table inet $TABLE' shows nothing" >&2
    exit 1
  }
}

possible() {
  local test=${TABLE}_test
  if ! command -v nft >/dev/null; then
    echo "'nft' is missing: install nftables"
    exit 1
  fi
  hold : 2>/dev/null
  echo "table inet $test { flags owner; chain test { ct status dnat drop; }; }" >&"$HOLDER"
  if ! wait_closed "$test" || nft delete table inet "$test" 2>/dev/null; then
    echo "nftables has no tables with an owner here: it needs Linux 5.12 and nftables 1.0"
    exit 1
  fi
}

check_all() {
  check
  if [ -n "${FAIL_CLOSED:-}" ] && ! is_closed "$TABLE"; then
    echo "ports that are not redirected are open"
  fi
}

main() { # watch, ready, check or possible
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR=/run
  # In a join this script is on standard input, and the other one is not there yet.
  # shellcheck source=/dev/null
  [ "$1" = possible ] ||
    for script in redirect redirect_firewall; do . "${BASH_SOURCE[0]%/*}/$script.sh"; done
  case $1 in
  watch) watch ;;
  ready) ready ;;
  check) locked check_all ;;
  possible) possible ;;
  esac
  exit 0
}

if ! (return 0 2>/dev/null); then main "$@" </dev/null; fi
