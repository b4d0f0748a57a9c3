# What Istio's package needs of an image that lacks it. A gateway's machines run nothing else, so they have no setup of the stack's.
command -v iptables >/dev/null && exit
if command -v apt-get >/dev/null; then
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes iptables
else
  dnf install --assumeyes iptables-nft
fi
