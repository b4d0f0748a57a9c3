# Installs what Istio's package needs and an image lacks. It is the startup script of gateways'
# machines, which run nothing else.
command -v iptables >/dev/null && exit
if command -v apt-get >/dev/null; then
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes iptables
else
  dnf install --assumeyes iptables-nft
fi
