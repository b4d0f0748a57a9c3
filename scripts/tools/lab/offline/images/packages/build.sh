# Builds the package $2 of the directory $1, and $2.sha256 beside it. The same files make the same
# package: their times are that of the release.
set -eu
export SOURCE_DATE_EPOCH=1787834720
find "$1" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zzstd -z3 --build "$1" "$2"
cd "$(dirname "$2")"
sha256sum "$(basename "$2")" >"$2.sha256"
