# Makes a Docker network, or keeps the one of that name if its ranges are the same. Variables: NAME, RANGE, DYNAMIC_RANGE, LABEL.
set -eu
found=$(docker network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' "$NAME" 2>/dev/null || true)
if [ -n "$found" ] && [ "$found" != "$RANGE" ]; then
  echo "the Docker network $NAME exists with range $found instead of $RANGE: remove it (docker network rm $NAME) or change networks in the stack file" >&2
  exit 1
fi
if [ -z "$found" ]; then
  docker network create --driver bridge --subnet "$RANGE" --ip-range "$DYNAMIC_RANGE" --label "$LABEL" "$NAME" >/dev/null
fi
echo "$NAME"
