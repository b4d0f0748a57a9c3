# Puts the kubeconfig where only this process' user can read it, for as long as this script runs.
KUBECONFIG=$(mktemp)
export KUBECONFIG
trap 'rm -f "$KUBECONFIG"' EXIT
printf %s "$KUBECONFIG_BASE64" | base64 -d >"$KUBECONFIG"
