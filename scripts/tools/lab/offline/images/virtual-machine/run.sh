# Runs the virtual machine in a container, with the container's address and MAC address: to Docker's
# network, the container is the machine. The console is this script's output. What the machine
# writes stays in the container.
#
# MACHINE: its name. KEY: of who may log in, as in authorized_keys.
# ROUTES: lines `CIDR via ADDRESS`.
set -eu
disk=/machine/own.qcow2
options='root=/dev/vda rw console=ttyS0 quiet mitigations=off net.ifnames=0'

network() {
  printf '%s\n' '[Match]' 'Name=eth0' \
    '[Network]' "Address=$address" "Gateway=$gateway" "DNS=$gateway"
  printf '%s\n' "$ROUTES" | while read -r cidr _ router; do
    printf '%s\n' '[Route]' "Destination=$cidr" "Gateway=$router"
  done
}

hosts() {
  printf '%s\n' '127.0.0.1 localhost' "127.0.1.1 $MACHINE"
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

[ -e "$disk" ] || qemu-img create -q -f qcow2 -b /machine/disk.qcow2 -F qcow2 "$disk"
options="$options systemd.hostname=$MACHINE"
options="$options$(network | credential network.network.50-lab)"
options="$options$(hosts | credential network.hosts)"
options="$options$(echo "$KEY" | credential ssh.authorized_keys.root)"
exec qemu-system-x86_64 -accel "$(accelerator)" -cpu max -smp 2 -m 1536 \
  -nodefaults -display none -serial stdio \
  -kernel /machine/kernel -initrd /machine/initrd -append "$options" \
  -drive "file=$disk,if=virtio,format=qcow2" -device virtio-rng-pci \
  -netdev tap,id=lab,ifname=tap0,script=no,downscript=no \
  -device "virtio-net-pci,netdev=lab,mac=$mac"
