# Copies iptables, nft and conntrack with the libraries that they load to the directory $1.
set -eu
programs="/usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi"
programs="$programs /usr/sbin/nft /usr/sbin/conntrack"
extensions=$(dpkg -L libxtables12 iptables | grep '/xtables/')
libraries=$(for file in $programs $extensions; do ldd "$file" 2>/dev/null; done |
  grep -o '/[^ ]*\.so[^ ]*' | sort -u)
mkdir -p "$1/usr" "$1/run"
for part in bin sbin lib lib64; do
  mkdir -p "$1/usr/$part"
  ln -s "usr/$part" "$1/$part"
done
for file in $programs $extensions $libraries /etc/protocols; do
  [ -d "$file" ] || cp --parents -L "$file" "$1"
done
for name in iptables ip6tables iptables-save ip6tables-save iptables-restore ip6tables-restore; do
  ln -s xtables-nft-multi "$1/usr/sbin/$name"
done
