# Makes an SSH key pair and prints it in base64: `private=` and `public=`.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
ssh-keygen -q -t ed25519 -N '' -C istio-vm-mesh -f "$directory/key"
echo "private=$(base64 -w0 <"$directory/key")"
echo "public=$(base64 -w0 <"$directory/key.pub")"
