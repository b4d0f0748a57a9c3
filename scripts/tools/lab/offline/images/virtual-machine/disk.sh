# Makes the disk of the guest's files, and puts what qemu starts beside it.
set -eu
mkdir /machine
cd /guest
rm boot/vmlinuz-*
mv boot/vmlinux /machine/kernel
mv boot/initrd.img-* /machine/initrd
rm -f .dockerenv vmlinuz* initrd.img* etc/hosts
echo guest >etc/hostname
ln -sf ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
touch etc/.updated var/.updated # what systemd does after an update has been done
mke2fs -q -t ext4 -L root -d /guest /disk.raw 4G
qemu-img convert -O qcow2 /disk.raw /machine/disk.qcow2
rm /disk.raw
