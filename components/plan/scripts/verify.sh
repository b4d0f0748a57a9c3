# Proves that a workload answers: waits until its entries are healthy, then calls its Service from a pod of its own.
# Prints tab-separated evidence: `entry`, `pod` and `call` lines. Variables: WORKLOAD, NAMESPACE, ENTRIES (`machine=entry=endpoint`), SELECTOR,
# JOB_MANIFEST_BASE64 ("" where there is nothing to call), PATIENCE (seconds), MODE (fail or warn); where the
# workload has groups, FLEET (their machines at least) and PORT (the endpoints').
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
deadline=$((SECONDS + PATIENCE))
for item in $ENTRIES; do
  IFS='=' read -r machine entry endpoint <<<"$item"
  while :; do
    found=$(health "$entry")
    [ "$found" = "$entry/True" ] && break
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
kube get pods --selector "$SELECTOR" --field-selector status.phase=Running \
  --output 'jsonpath={range .items[*]}{"pod\t"}{.metadata.name}{"\t-\t"}{.status.podIP}{"\t"}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' |
  sed 's/\tTrue$/\tReady/; s/\tFalse$/\tNotReady/'

[ -n "$JOB_MANIFEST_BASE64" ] || exit 0
job=$(printf %s "$JOB_MANIFEST_BASE64" | base64 -d | kube create --filename - --output name) || stop "cannot create the Job that calls the workload"
trap 'kube delete "$job" --ignore-not-found --wait=false >/dev/null 2>&1; rm -f "$KUBECONFIG"' EXIT
# The container's end is waited for, not the Job's: the sidecar beside it drains for some seconds more.
state() { kube get pods --selector "job-name=${job#*/}" --output "jsonpath={.items[*].status.containerStatuses[?(@.name=='calls')].state$1}"; }
deadline=$((SECONDS + 120))
while :; do
  ended=$(state .terminated.exitCode)
  [ "$ended" = 0 ] && break
  [ -z "$ended" ] || stop "$(kube logs "$job" --container calls 2>&1 | tail -n 1)"
  ((SECONDS < deadline)) || stop "the pod that calls it did not run within 120 s: $(state "" | cut -c 1-300)"
  sleep 0.2
done
kube logs "$job" --container calls | grep '^call'
