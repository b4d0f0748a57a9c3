# Takes a machine out of the mesh and back to what it was before it joined, by either way; run as
# root. Variable: PURGE (yes, or empty: the package stays).
systemctl disable --now --quiet istio
systemctl reset-failed istio 2>/dev/null
rm -rf /etc/systemd/system/istio.service{,.d} /etc/certs /run/secrets/tokens /var/lib/istio/proxy/*
rm -f /var/lib/istio/envoy/{cluster.env,overrides.env,istio-token} /var/lib/istio/config/mesh \
  /var/lib/istio-vm-mesh/{digest,registration}
# A container's hosts file cannot be replaced.
others=$(grep -v istiod /etc/hosts)
echo "$others" >/etc/hosts
if [ -n "$PURGE" ]; then
  dpkg --purge istio-sidecar >/dev/null 2>&1
  rm -rf /var/lib/istio /etc/istio /var/log/istio /var/lib/istio-vm-mesh
fi
systemctl daemon-reload
! iptables-save | grep -q ISTIO
