# Makes the guest: its user, what runs on it, and an initial RAM disk with nothing but its disk's
# and its network's drivers. It gets no identity yet: it has its machine-id and host key from its
# first boot. A boot is cheap, because its instructions may be translated.
set -eu
useradd --create-home --shell /bin/bash --password '*' admin
rm -f /etc/ssh/ssh_host_*
chmod 0440 /etc/sudoers.d/admin
systemctl enable ssh.service ssh-host-key.service application.service \
  systemd-networkd.service systemd-resolved.service
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
  e2scrub_all.timer e2scrub_reap.service sshd-keygen.service \
  getty.target remote-fs.target systemd-pstore.service \
  modprobe@.service kmod-static-nodes.service systemd-tmpfiles-setup-dev-early.service \
  systemd-tmpfiles-setup-dev.service dev-hugepages.mount dev-mqueue.mount \
  sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
  sys-fs-fuse-connections.mount systemd-remount-fs.service systemd-random-seed.service \
  systemd-journal-flush.service systemd-tmpfiles-clean.timer
systemctl set-default multi-user.target
# A login needs no manager of its user's units, which costs most of it.
systemctl mask user@.service
# Each runs at each boot and each reload, for what is not here.
mkdir -p /etc/systemd/system-generators
for generator in /usr/lib/systemd/system-generators/*; do
  ln -s /dev/null "/etc/systemd/system-generators/${generator##*/}"
done
printf '%s\n' virtio_pci virtio_blk virtio_net ext4 crc32c >/etc/initramfs-tools/modules
rm -f /usr/share/initramfs-tools/hooks/udev /usr/share/initramfs-tools/scripts/init-*/udev
update-initramfs -u -k all
# The kernel behind what would unpack it at each boot: by its magic number of zstd.
kernel=$(echo /boot/vmlinuz-*)
start=$(LC_ALL=C grep -abom 1 "$(printf '\050\265\057\375')" "$kernel" | cut -d : -f 1)
tail -c "+$((start + 1))" "$kernel" | zstd -dcq >/boot/vmlinux 2>/dev/null || true
[ "$(head -c 4 /boot/vmlinux | tail -c 3)" = ELF ]
: >/etc/machine-id
