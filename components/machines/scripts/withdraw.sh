# The unit runs this around the end of the agent, as root, so that no request is lost.
# `withdraw.sh`, before: has istiod deregister this machine while Envoy still answers.
# istiod deletes the WorkloadEntry GRACE_S seconds after the agent's connection has ended
# (DISCONNECT_GRACE_S of overrides.env, where it is not ten).
# So this ends the connection and prevents another one.
# `withdraw.sh undo`, after: permits connections again.
# `withdraw.sh shutdown`, before the application stops: deregisters the machine and stops the agent.
# A request that is in progress when Envoy ends fails, and no caller repeats it. So Envoy ends when
# no caller has this machine any more.
GRACE_S=${DISCONNECT_GRACE_S:-10}
# The agent's terminationDrainDuration, which is in overrides.env where it is not Istio's default.
DRAIN_S=${DRAIN_S:-5}
# Behind Istio's own port there is istiod alone. overrides.env has another port with the gateway's
# name. Other connections can have that port, so addresses distinguish istiod's from these.
PORT=${GATEWAY_PORT:-15012}
WITHDRAWN=/run/istio-vm-mesh-withdrawn
REJECTED=/run/istio-vm-mesh-rejected # the addresses of the rules, one a line

# Prints the gateway's addresses: those of its name, and those that the agent is connected to.
gateway_addresses() {
  local self peer program
  [ -n "${GATEWAY_HOST:-}" ] || return 0
  {
    getent ahostsv4 "$GATEWAY_HOST" | cut -d ' ' -f 1
    ss --no-header --tcp --numeric --processes state established dport = "$PORT" |
      while read -r _ _ self peer program; do
        # To itself, the agent probes the application.
        if [[ $program == *'"pilot-agent"'* ]] && [ "${self%:*}" != "${peer%:*}" ]; then
          echo "${peer%:*}"
        fi
      done
  } | sort -u
}

# Sets the rule and the filter of ss. The rule rejects new connections alone: the ends of
# established ones must get out.
select_connections() { # address...
  local address filter=()
  to_istiod=(OUTPUT --protocol tcp --syn --dport "$PORT" --match owner --uid-owner istio-proxy)
  connections=(dport "=" "$PORT")
  if [ $# -gt 0 ]; then
    to_istiod+=(--destination "$(
      IFS=,
      echo "$*"
    )")
    for address; do filter+=(or dst "$address"); done
    connections+=(and '(' "${filter[@]:1}" ')')
  fi
  to_istiod+=(--jump REJECT --reject-with tcp-reset)
}

is_connected() {
  [ -n "$(ss --no-header --tcp --numeric state established "${connections[@]}")" ]
}

withdraw() {
  local addresses
  rm -f "$WITHDRAWN"
  # Without Envoy no caller gets an answer, so there is nothing to wait for.
  pgrep -u istio-proxy -x envoy >/dev/null || return 0
  mapfile -t addresses < <(gateway_addresses)
  printf '%s\n' "${addresses[@]}" >"$REJECTED"
  select_connections "${addresses[@]}"
  iptables --wait --insert "${to_istiod[@]}" || return 0
  for _ in $(seq 20); do
    ss --kill --tcp "${connections[@]}" >/dev/null
    is_connected || break
    sleep 0.1
  done
  # A kernel without INET_DIAG_DESTROY does not end connections: only the agent's drain is left.
  if is_connected; then
    echo "cannot end the connection to istiod before the agent stops: requests may be lost" >&2
    return 0
  fi
  date +%s >"$WITHDRAWN"
  sleep $((GRACE_S + 1))
}

undo() {
  local addresses=()
  [ ! -e "$REJECTED" ] || mapfile -t addresses < <(grep . "$REJECTED")
  select_connections "${addresses[@]}"
  while iptables --wait --delete "${to_istiod[@]}" 2>/dev/null; do :; done
  rm -f "$REJECTED"
}

# The agent's unit stops later in a shutdown, with all others, so this ends the agent itself.
# Where the machine stays registered, callers call it until istiod's grace period is over. It
# refuses them at once then, so they retry elsewhere.
shut_down() {
  local agent wait_s=$((DRAIN_S + 1))
  withdraw
  [ -e "$WITHDRAWN" ] || wait_s=$((wait_s + GRACE_S + 1))
  agent=$(systemctl show --property MainPID --value istio-vm-mesh)
  [ "${agent:-0}" != 0 ] || return 0
  kill -TERM "$agent"
  sleep $wait_s
}

main() { # nothing, undo or shutdown
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR=/run
  case ${1:-} in
  undo) undo ;;
  shutdown) shut_down ;;
  *) withdraw ;;
  esac
}

if ! (return 0 2>/dev/null); then main "$@" </dev/null; fi
