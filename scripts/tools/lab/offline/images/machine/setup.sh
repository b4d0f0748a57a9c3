# Makes the machine: its users and what runs on it. It gets no identity yet (host keys, machine-id):
# each machine makes its own.
set -eu
useradd --create-home --shell /bin/bash --password '*' admin
install -d -m 0700 -o admin -g admin /home/admin/.ssh
useradd --system --no-create-home --shell /usr/sbin/nologin application
rm -f /etc/ssh/ssh_host_*
systemctl enable ssh.service echo.service systemd-resolved.service
systemctl mask systemd-binfmt.service
chmod 0440 /etc/sudoers.d/admin
: >/etc/machine-id
