# Istio's documented way onto a virtual machine, scripted with the fewest connections: istioctl, one
# scp, one ssh (istio.io: docs/setup/install/virtual-machine). It uses nothing of this program.
# The WorkloadGroup is in $WORK/group.yaml already. Variables: WORK, CLUSTER_ID, GATEWAY, HOST,
# PACKAGE_URL, INSTALL (yes, or empty where the package is there); SSH_OPTIONS, an array.
set -eu
istioctl x workload entry configure --file "$WORK/group.yaml" --output "$WORK" \
  --clusterID "$CLUSTER_ID" --ingressIP "$GATEWAY" --autoregister >/dev/null
scp -q "${SSH_OPTIONS[@]}" "$WORK"/{cluster.env,mesh.yaml,root-cert.pem,istio-token,hosts} "$HOST:"
ssh "${SSH_OPTIONS[@]}" "$HOST" \
  sudo PACKAGE_URL="$PACKAGE_URL" INSTALL="$INSTALL" bash -es <<'ON_THE_MACHINE'
cd ~admin
mkdir -p /etc/certs /var/run/secrets/tokens
cp root-cert.pem /etc/certs/root-cert.pem
cp istio-token /var/run/secrets/tokens/istio-token
if [ -n "$INSTALL" ]; then
  curl --silent --show-error --location --remote-name "$PACKAGE_URL"
  dpkg --install istio-sidecar.deb >/dev/null
fi
cp cluster.env /var/lib/istio/envoy/cluster.env
cp mesh.yaml /etc/istio/config/mesh
cat hosts >>/etc/hosts
mkdir -p /etc/istio/proxy
chown -R istio-proxy /var/lib/istio /etc/certs /etc/istio/proxy /etc/istio/config \
  /var/run/secrets /etc/certs/root-cert.pem
systemctl start istio
ON_THE_MACHINE
