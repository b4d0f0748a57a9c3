# Proves that a workload answers: waits until its entries are healthy, then calls its Service from a pod of its own.
# Then a pod outside the mesh calls every endpoint, and must be refused. Prints tab-separated evidence: `entry`, `pod`, `call` and `outside` lines.
# Variables: WORKLOAD, NAMESPACE, ENTRIES (`machine=entry=endpoint`), PORT (the endpoints'), SELECTOR, JOB_MANIFEST_BASE64 ("" where there is
# nothing to call), OUTSIDE_MANIFEST_BASE64 (in which PODS stands for the pods' endpoints), STRICT ("" where being answered outside the mesh is no
# failure), PATIENCE (seconds), MODE (fail or warn); where the workload has groups, FLEET (their machines at least).
set -u
kube() { kubectl --request-timeout=20s --namespace "$NAMESPACE" "$@"; }

stop() {
  echo "workload $WORKLOAD: $*" >&2
  [ "$MODE" = fail ] && exit 1
  exit 0
}

health() { kube get workloadentry "$1" --ignore-not-found --output 'jsonpath={.metadata.name}/{.status.conditions[?(@.type=="Healthy")].status}'; }

why() { kube get workloadentry "$1" --output 'jsonpath={.status.conditions[?(@.type=="Healthy")].message}'; }

kube get namespace "$NAMESPACE" >/dev/null || stop "the API server does not answer"
# Another entry of the workload with this address: the machine has registered, but not as the stack says.
other() {
  kube get workloadentry --output 'jsonpath={range .items[*]}{.spec.address}{" "}{.metadata.name}{" "}{.spec.network}{"\n"}{end}' |
    awk -v address="$1" '$1 == address { print $2 " in the network " $3; exit }'
}

deadline=$((SECONDS + PATIENCE))
for item in $ENTRIES; do
  IFS='=' read -r machine entry endpoint <<<"$item"
  while :; do
    found=$(health "$entry")
    [ "$found" = "$entry/True" ] && break
    if [ -z "$found" ] && ((SECONDS >= deadline - PATIENCE * 3 / 4)) && other=$(other "${endpoint%:*}") && [ -n "$other" ]; then
      stop "machine $machine has registered as $other instead of $entry: does its agent run with another network or group (ISTIO_META_NETWORK, ISTIO_META_AUTO_REGISTER_GROUP)?"
    fi
    if ((SECONDS >= deadline)); then
      case $found in
      "$entry/False") stop "machine $machine is unhealthy: its probe fails ($(why "$entry")): is the application running on the machine, and on the probe's port?" ;;
      "$entry/") stop "machine $machine has registered but reports no health: is the probe in its mesh configuration?" ;;
      *) stop "machine $machine did not register (there is no WorkloadEntry $entry): see 'journalctl --unit istio' on it" ;;
      esac
    fi
    sleep 0.5
  done
  printf 'entry\t%s\t%s\t%s\tHealthy\n' "$machine" "$entry" "$endpoint"
done

# Machines of groups have names that nobody knows before: as many healthy entries besides those above as the groups have machines at least.
fleet() {
  kube get workloadentry --output 'jsonpath={range .items[*]}{.metadata.name}{"\t"}{.spec.address}{"\t"}{.status.conditions[?(@.type=="Healthy")].status}{"\n"}{end}' |
    awk -v workload="$WORKLOAD" -v known=" ${ENTRIES//=/ } " '$3 == "True" && index($1, workload "-" $2 "-") == 1 && !index(known, " " $1 " ")'
}
if [ "${FLEET:-0}" -gt 0 ]; then
  deadline=$((SECONDS + 300))
  until healthy=$(fleet) && [ "$(grep -c . <<<"$healthy")" -ge "$FLEET" ]; do
    ((SECONDS < deadline)) ||
      stop "only $(grep -c . <<<"$healthy") of $FLEET machines of groups are healthy: see 'journalctl --unit google-startup-scripts' on the others"
    sleep 2
  done
  while IFS=$'\t' read -r entry address _; do printf 'entry\t%s\t%s\t%s\tHealthy\n' "$address" "$entry" "$address:$PORT"; done <<<"$healthy"
fi
pods=$(kube get pods --selector "$SELECTOR" --field-selector status.phase=Running \
  --output 'jsonpath={range .items[*]}{"pod\t"}{.metadata.name}{"\t-\t"}{.status.podIP}{"\t"}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' |
  sed 's/\tTrue$/\tReady/; s/\tFalse$/\tNotReady/')
[ -z "$pods" ] || printf '%s\n' "$pods"

[ -n "$JOB_MANIFEST_BASE64" ] || exit 0
decoded=$(printf %s "$OUTSIDE_MANIFEST_BASE64" | base64 -d)
reached=$(awk -F '\t' -v port="$PORT" '$5 == "Ready" { printf "%s:%s ", $4, port }' <<<"$pods")$(awk -F '\t' -v port="$PORT" 'NF { printf "%s:%s ", $2, port }' <<<"${healthy:-}")
outside=$(printf %s "${decoded//"$PODS"/$reached}" | kube create --filename - --output name) || stop "cannot create the Job that calls from outside the mesh"
job=$(printf %s "$JOB_MANIFEST_BASE64" | base64 -d | kube create --filename - --output name) || stop "cannot create the Job that calls the workload"
trap 'kube delete "$job" "$outside" --ignore-not-found --wait=false >/dev/null 2>&1; rm -f "$KUBECONFIG"' EXIT
# The container's end is waited for, not the Job's: the sidecar beside it drains for some seconds more.
state() { kube get pods --selector "job-name=${1#*/}" --output "jsonpath={.items[*].status.containerStatuses[?(@.name=='calls')].state$2}"; }
deadline=$((SECONDS + 120))
wait_for() {
  while :; do
    ended=$(state "$1" .terminated.exitCode)
    [ "$ended" = 0 ] && break
    [ -z "$ended" ] || stop "$(kube logs "$1" --container calls 2>&1 | tail -n 1)"
    ((SECONDS < deadline)) || stop "the pod that calls it did not run within 120 s: $(state "$1" "" | cut -c 1-300)"
    sleep 0.2
  done
}
wait_for "$job"
kube logs "$job" --container calls | grep '^call'
wait_for "$outside"
said=$(kube logs "$outside" --container calls)
printf '%s\n' "$said"
answered=$(awk -F '\t' '$3 == "answered" { printf " %s", $2 }' <<<"$said")
[ -z "$answered" ] || [ -z "$STRICT" ] ||
  stop "a caller outside the mesh was answered by$answered: is mutual TLS strict for it (PeerAuthentication), and does its sidecar capture the port?"
