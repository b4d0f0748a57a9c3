# Takes this machine out of the mesh and removes what the join brought: the agent and its rules,
# keys and certificates, files, the package. A certificate stays valid after its ServiceAccount is
# gone, so the key must go. A machine that never joined stays as it is.
# A second run changes nothing.
# Variable: MACHINE.
STATE=/var/lib/istio-vm-mesh

# The unit removes the rules when it stops. A unit that was killed or replaced did not.
remove_rules() (
  set -a
  for file in /var/lib/istio/envoy/cluster.env /var/lib/istio/envoy/overrides.env; do
    # shellcheck disable=SC1090 # written by the join
    if [ -r $file ]; then . $file; fi
  done
  bash /var/lib/istio/envoy/redirect.sh off
)

remove_keys() {
  local file
  for file in /etc/certs/{key,cert-chain,root-cert}.pem /var/lib/istio/envoy/istio-token; do
    if [ -e "$file" ]; then shred --remove "$file" 2>/dev/null || rm -f "$file"; fi
  done
  rm -f /etc/certs/*.istio-vm-mesh # of a join that was cut short
  rmdir /etc/certs 2>/dev/null
}

remove_package() {
  if command -v dpkg >/dev/null; then
    dpkg --purge istio-sidecar
  else
    rpm --erase istio-sidecar
  fi
}

remove_units() {
  local units=/etc/systemd/system
  rm -f $units/istio.service{,.istio-vm-mesh} $units/istio.service.d/sidecar.conf{,.istio-vm-mesh}
  rmdir $units/istio.service.d 2>/dev/null
}

# Either backend may have rules, whichever `iptables` is now.
has_rules() {
  {
    iptables-save
    iptables-legacy-save
    iptables-nft-save
  } 2>/dev/null | grep -q ISTIO
}

main() {
  set -u
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
  [ "$(id -u)" = 0 ] ||
    fail "leaving the mesh needs root: let the SSH user run sudo without a password"
  [ -d "$STATE" ] || exit 0
  # There is nothing to wait for: the machine's entry was deleted before.
  rm -f /var/lib/istio/envoy/withdraw.sh
  systemctl disable --now --quiet istio 2>/dev/null
  remove_rules >/dev/null 2>&1
  remove_keys
  remove_units
  remove_package >/dev/null 2>&1
  systemctl daemon-reload
  systemctl reset-failed istio 2>/dev/null
  if [ -L /etc/istio ]; then rm -f /etc/istio; fi
  rm -rf /var/lib/istio /var/log/istio /run/secrets/tokens/istio-token /run/istio-vm-mesh-*
  ! has_rules ||
    fail "redirection rules of Istio are left: see 'iptables-save' and 'iptables-legacy-save'," \
      "and restart the machine"
  # Last, so that the next run finishes one that was cut short.
  rm -rf "$STATE"
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
