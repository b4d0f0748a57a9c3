# Takes this machine out of the mesh and removes what the join brought: the agent and its rules, keys and certificates, files, the package.
# A certificate stays valid after its ServiceAccount is gone, so the key must go. A machine that never joined is left alone; a second
# run changes nothing. Variable: MACHINE.
state=/var/lib/istio-vm-mesh

main() {
  set -u
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
  if [ "$(id -u)" != 0 ]; then
    echo "machine $MACHINE: leaving the mesh needs root: let the SSH user run sudo without a password" >&2
    exit 1
  fi
  [ -d $state ] || exit 0
  # Nobody calls this machine any more: its entry went first.
  rm -f /var/lib/istio/envoy/istio-vm-mesh-step-back.sh
  systemctl disable --now --quiet istio 2>/dev/null
  # The unit does this when it stops; it may have been killed, or replaced.
  (
    set -a
    for file in /var/lib/istio/envoy/cluster.env /var/lib/istio/envoy/istio-vm-mesh.env; do
      if [ -r $file ]; then . $file; fi
    done
    bash /var/lib/istio/envoy/istio-vm-mesh-capture.sh nothing
  ) >/dev/null 2>&1
  for key in /etc/certs/key.pem /etc/certs/cert-chain.pem /etc/certs/root-cert.pem /var/lib/istio/envoy/istio-token; do
    if [ -e $key ]; then shred --remove $key 2>/dev/null || rm -f $key; fi
  done
  rmdir /etc/certs 2>/dev/null
  rm -f /etc/systemd/system/istio.service
  if command -v dpkg >/dev/null; then
    dpkg --purge istio-sidecar >/dev/null 2>&1
  else
    rpm --erase istio-sidecar >/dev/null 2>&1
  fi
  systemctl daemon-reload
  systemctl reset-failed istio 2>/dev/null
  if [ -L /etc/istio ]; then rm -f /etc/istio; fi
  rm -rf /var/lib/istio /var/log/istio /run/secrets/tokens/istio-token /run/istio-vm-mesh-*
  # Either backend may have them, whichever `iptables` is now.
  if { iptables-save; iptables-legacy-save; iptables-nft-save; } 2>/dev/null | grep -q ISTIO; then
    echo "machine $MACHINE: redirection rules of Istio are left: see 'iptables-save' and 'iptables-legacy-save', and restart the machine" >&2
    exit 1
  fi
  # Last, so that a run that was cut short is finished by the next one.
  rm -rf $state
}

main </dev/null
