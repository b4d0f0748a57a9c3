# Runs in a throw-away container of the node image: stores the images on standard input, an archive
# of `docker save`, in the node's containerd.
set -eu
containerd >/tmp/containerd.log 2>&1 &
containerd=$!
for _ in $(seq 100); do
  ctr version >/dev/null 2>&1 && break
  sleep 0.1
done
# The node unpacks them at its first start, as kind does it: the image stays smaller and does not
# depend on the node's file system.
if ! ctr --namespace k8s.io images import --all-platforms --no-unpack -; then
  cat /tmp/containerd.log
  exit 1
fi
ctr --namespace k8s.io images list --quiet
kill "$containerd"
wait "$containerd" || true
rm -rf /tmp/containerd.log /run/containerd
