# Installs what Istio's package needs and an image lacks. It is the startup script of gateways'
# machines, which run nothing else. A new network's NAT, a mirror or another apt may stop it once.
until command -v iptables >/dev/null; do
  if command -v apt-get >/dev/null; then
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get --option DPkg::Lock::Timeout=120 \
      install --yes iptables
  else
    dnf install --assumeyes iptables-nft
  fi || sleep 10
done
