# Makes the machine: its users and what runs on it. It gets no identity yet (host keys, machine-id):
# each machine makes its own.
set -eu
useradd --create-home --shell /bin/bash --password '*' admin
install -d -m 0700 -o admin -g admin /home/admin/.ssh
useradd --system --no-create-home --shell /usr/sbin/nologin application
rm -f /etc/ssh/ssh_host_*
systemctl enable ssh.service echo.service systemd-resolved.service
# What a container has no use for: disks, kernel modules, updates, consoles, and records of logins.
# All machines of a lab boot on the same processors, and systemd runs its generators at each reload,
# too.
systemctl mask systemd-binfmt.service systemd-modules-load.service dev-hugepages.mount \
  sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount \
  sys-kernel-tracing.mount apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
  e2scrub_all.timer e2scrub_reap.service getty@tty1.service console-getty.service \
  proc-sys-fs-binfmt_misc.automount systemd-ask-password-console.path \
  systemd-ask-password-wall.path systemd-sysusers.service systemd-update-utmp.service \
  systemd-update-utmp-runlevel.service
for name in configfs dm_mod drm efi_pstore fuse loop; do
  systemctl mask "modprobe@$name.service"
done
install -d /etc/systemd/system-generators
for name in cryptsetup debug fstab getty gpt-auto hibernate-resume integritysetup rc-local run \
  system-update veritysetup; do
  ln -s /dev/null "/etc/systemd/system-generators/systemd-$name-generator"
done
chmod 0440 /etc/sudoers.d/admin
: >/etc/machine-id
