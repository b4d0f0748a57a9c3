# Waits until a Compute Engine machine has started and published its SSH host key as a guest attribute, which only the machine itself can
# write; prints it. Variables: PROJECT, ZONE, INSTANCE.
if ! command -v gcloud >/dev/null; then
  echo "gcloud is not on PATH: it reads the host key of $INSTANCE (install Google Cloud's CLI)" >&2
  exit 1
fi
deadline=$((SECONDS + 300))
while :; do
  if key=$(gcloud compute instances get-guest-attributes "$INSTANCE" --project "$PROJECT" --zone "$ZONE" --query-path=hostkeys/ssh-ed25519 \
    --format='value(value)' --quiet 2>&1) && [ -n "$key" ]; then
    break
  fi
  if ((SECONDS >= deadline)); then
    echo "$INSTANCE published no host key within 300 s: does its image have Google's guest agent? gcloud says: ${key:-nothing}" >&2
    exit 1
  fi
  sleep 3
done
echo "ssh-ed25519 $key"
