# Makes the guest: its user, what runs on it, and an initial RAM disk with nothing but its disk's
# drivers. It gets no identity yet (host key, machine-id): it makes its own at its first boot.
set -eu
useradd --create-home --shell /bin/bash --password '*' admin
rm -f /etc/ssh/ssh_host_*
chmod 0440 /etc/sudoers.d/admin
systemctl enable ssh.service ssh-host-key.service systemd-networkd.service systemd-resolved.service
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
  e2scrub_all.timer e2scrub_reap.service
systemctl set-default multi-user.target
printf '%s\n' virtio_pci virtio_blk ext4 crc32c >/etc/initramfs-tools/modules
update-initramfs -u -k all
: >/etc/machine-id
