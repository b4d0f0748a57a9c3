# Runs the virtual machine in a container, with the container's address and MAC address: to Docker's
# network, the container is the machine. The console is this script's output. What the machine
# writes stays in the container.
#
# The machine gets what the container was created with: its name, the host key, who may log in, and
# the routes of its unit.
set -eu
cd "${ROOT:-/}"
disk=/machine/own.qcow2
options='root=/dev/vda rw console=ttyS0 quiet mitigations=off net.ifnames=0'
# What costs most where instructions are translated.
options="$options init_on_alloc=0 no5lvl nokaslr audit=0 apparmor=0 selinux=0"

network() {
  printf '%s\n' '[Match]' 'Name=eth0' \
    '[Network]' "Address=$address" "Gateway=$gateway" "DNS=$gateway"
  sed -n 's/.*ip route replace //p' etc/systemd/system/routes.service |
    while read -r cidr _ router; do
      printf '%s\n' '[Route]' "Destination=$cidr" "Gateway=$router"
    done
}

hosts() {
  printf '%s\n' '127.0.0.1 localhost' "127.0.1.1 $(hostname)"
  getent hosts host.docker.internal
}

# systemd writes them to their places.
credential() { # name
  printf ' systemd.set_credential_binary=%s:%s' "$1" "$(base64 -w 0)"
}

# There are hosts with a /dev/kvm in which no kernel starts.
accelerator() {
  if [ -w /dev/kvm ] && timeout 5 qemu-system-x86_64 -accel kvm -cpu max -m 512 -no-reboot \
    -display none -serial stdio -kernel /machine/kernel -append 'console=ttyS0 panic=-1' \
    </dev/null 2>&1 | grep -q 'Linux version'; then
    echo kvm
  else
    echo tcg,thread=multi
  fi
}

address=$(ip -4 -o address show dev eth0 | awk '{ print $4 }')
gateway=$(ip route show default | awk '{ print $3 }')
mac=$(ip -o link show dev eth0 | sed 's/.*ether \([^ ]*\).*/\1/')
ip address flush dev eth0
ip link set eth0 address "02:ff:${mac#*:*:}"
ip link add lab type bridge
ip tuntap add tap0 mode tap
for link in eth0 tap0; do ip link set "$link" master lab up; done
ip link set lab up

# Not a credential: the host key would be on a command line.
tar --create --file tmp/keys.tar etc/ssh/ssh_host_ed25519_key*
[ -e "$disk" ] || qemu-img create -q -f qcow2 -b /machine/disk.qcow2 -F qcow2 "$disk"
options="$options systemd.hostname=$(hostname)"
options="$options$(network | credential network.network.50-lab)"
options="$options$(hosts | credential network.hosts)"
options="$options$(credential ssh.authorized_keys.root <home/admin/.ssh/authorized_keys)"
# One processor: two wait for each other where a busy computer runs one of them at a time. It has
# none of the protections that cost a translation at each access of the kernel to a process.
# What the machine flushes is with this computer's kernel then (cache=unsafe), and not on its disk.
# So a power cut, which ends qemu alone, loses none of it.
exec qemu-system-x86_64 -accel "$(accelerator)" -cpu max,-smap,-smep,-pku -smp 1 -m 1536 \
  -nodefaults -display none -serial stdio \
  -kernel /machine/kernel -initrd /machine/initrd -append "$options" \
  -drive "file=$disk,if=virtio,format=qcow2,cache=unsafe" \
  -drive 'file=tmp/keys.tar,if=virtio,format=raw,readonly=on' \
  -netdev tap,id=lab,ifname=tap0,script=no,downscript=no \
  -device "virtio-net-pci,netdev=lab,mac=$mac"
