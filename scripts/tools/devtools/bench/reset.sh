# Takes a machine out of the mesh and back to what it was before it joined, by either way; run as
# root. Variables: PURGE (yes, or empty: the package is there for either way), PACKAGE_URL.
for unit in istio istio-vm-mesh istio-vm-mesh-redirect; do
  systemctl disable --now --quiet "$unit"
  systemctl reset-failed "$unit"
done 2>/dev/null
rm -rf /etc/systemd/system/istio{,-vm-mesh,-vm-mesh-redirect}.service{,.d}
rm -rf /etc/certs /run/secrets/tokens /var/lib/istio/proxy/* /var/lib/istio-vm-mesh
rm -f /var/lib/istio/envoy/cluster.env /var/lib/istio/config/mesh
# A container's hosts file cannot be replaced.
others=$(grep -v istiod /etc/hosts)
echo "$others" >/etc/hosts
if [ -n "$PURGE" ]; then
  dpkg --purge istio-sidecar >/dev/null 2>&1
  rm -rf /var/lib/istio /etc/istio /var/log/istio /opt/istio-vm-mesh
elif [ ! -d /var/lib/istio/envoy ]; then
  # A join leaves its package in a directory of its own, and Debian's list without it.
  curl --silent --show-error --fail --output /tmp/istio-sidecar.deb "$PACKAGE_URL"
  dpkg --install /tmp/istio-sidecar.deb >/dev/null
fi
systemctl daemon-reload
! iptables-save | grep -q ISTIO
