# Starts bash again, as root and with a time limit. bash reads a script from a pipe byte by byte, so
# the new one gets all that follows this compound command. sudo is outside of timeout: when the time
# is up, all processes below timeout end, those of root too. Variable: TIME_LIMIT_S.
if [ "$(id -u)" = 0 ]; then
  exec timeout -k 10 "$TIME_LIMIT_S" bash -s
elif sudo -n true </dev/null; then
  exec sudo -n timeout -k 10 "$TIME_LIMIT_S" bash -s
else
  echo "install sudo and let $(id -un) run it without a password, or connect as root" >&2
  exit 1
fi
