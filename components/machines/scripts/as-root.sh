# Starts bash again, as root and with a time limit. bash reads a script from a pipe byte by byte, so
# the new one gets all that follows this compound command. sudo is outside of timeout: when the time
# is up, all processes below timeout end, those of root too. A script that is ended has time to
# bring back what it changed. `-p`: no functions and no start-up file from the environment.
# Variable: TIME_LIMIT_S, 0 for a script that keeps to a limit by itself.
if [ "$(id -u)" = 0 ]; then
  exec timeout -k 120 "$TIME_LIMIT_S" bash -ps
elif sudo -n true </dev/null; then
  exec sudo -n timeout -k 120 "$TIME_LIMIT_S" bash -ps
else
  echo "install sudo and let $(id -un) run it without a password, or connect as root" >&2
  exit 1
fi
