# Makes a kind node of Debian with kind's own files, as images/base/Dockerfile of kind does.
set -eu

# Units: systemd starts what a node needs and nothing else. binfmt registers with the kernel of the
# whole machine.
rm -f /lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
for wants in multi-user local-fs basic; do rm -f /lib/systemd/system/$wants.target.wants/*; done
rm -f /lib/systemd/system/sockets.target.wants/*udev* \
  /lib/systemd/system/sockets.target.wants/*initctl* /etc/systemd/system/*.wants/*
echo "ReadKMsg=no" >>/etc/systemd/journald.conf
systemctl enable kubelet.service containerd.service undo-mount-hacks.service pod-network.service
systemctl mask systemd-binfmt.service
mkdir -p /etc/kubernetes/manifests /etc/cni/net.d

# Where kind's files and kubelet expect what Debian installs elsewhere.
ln -s /usr/bin/containerd /usr/bin/ctr /usr/bin/containerd-shim-runc-v2 /usr/local/bin/
ln -s /usr/sbin/runc /usr/local/sbin/
mkdir -p /opt/cni/bin
for plugin in host-local loopback ptp portmap; do ln -s /usr/lib/cni/$plugin /opt/cni/bin/; done

# No limits on open files that a machine without CAP_SYS_RESOURCE could not set, and no OOM score
# below containerd's own, for the same reason.
hook='[{"path": "/kind/bin/mount-product-files.sh"}]'
ctr oci spec | jq "del(.process.rlimits) | .hooks.createContainer += $hook" \
  >/etc/containerd/cri-base.json
sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' /etc/containerd/config.toml
grep -q 'restrict_oom_score_adj = true' /etc/containerd/config.toml

# The sandbox image that kubeadm expects is the one in this image.
version=$(cat /kind/version)
pause=$(kubeadm config images list --kubernetes-version "$version" | grep /pause:)
sed -i "s#sandbox_image = .*#sandbox_image = \"$pause\"#" /etc/containerd/config.toml
