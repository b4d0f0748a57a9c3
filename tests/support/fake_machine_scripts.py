"""Run a script of the program as its plugin does, with short scripts for machines in place of the real ones.

`tests.support.world` puts this in the place of `python3`. The machines are directories, and the scripts below do there what the real ones do to
ownership: they stamp, they ask, and they answer by the same last lines. What istiod does to WorkloadEntries is a part of them.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

COMMON = r"""
set -eu
cd "$HOST_DIRECTORY"
ask() { echo "istio-vm-mesh: ask $*"; read -r answer; [ "${answer%% *}" = yes ] || { echo "machine $MACHINE: ${answer#no }" >&2; exit 1; }; }
entries() { kubectl --namespace "$NAMESPACE" "$@"; }
"""
JOIN = r"""
if [ -e owner ] && [ "$(cut -d ' ' -f 1-4 owner)" != "$OWNER" ]; then ask owner $(cat owner); fi
if [ -e agent ] && [ "$(cat digest)" = "$DIGEST" ] && [ -z "$KEPT_OUT$NO_ENTRY$OTHER_ENTRY" ]; then
  echo "kept $MACHINE" >>"$WORLD/log"
  echo "$DIGEST"
  exit 0
fi
if [ -e agent ]; then
  set -- $(cat owner)
  ask stop "$6" "$7" "$4"
fi
if [ -e broken ]; then echo "machine $MACHINE: the agent is not ready" >&2; exit 1; fi
echo "$OWNER $PLACE" >owner
if [ -e agent ]; then entries delete workloadentry "$(cat agent)" --ignore-not-found >/dev/null; fi
if [ "$KEPT_OUT" ]; then ask start; fi
# istiod registers an agent only by an entry of its own service account.
if ! entries create --filename - >/dev/null 2>&1 <<<"$MANIFEST"; then
  account=$(entries get workloadentry "$ENTRY" -o 'jsonpath={.spec.serviceAccount}')
  [ -z "$account" ] || { echo "machine $MACHINE: istiod refuses the agent: service account mismatch $account" >&2; exit 1; }
  entries replace --filename - >/dev/null <<<"$MANIFEST"
fi
entries patch workloadentry "$ENTRY" --subresource status --type merge --patch "$STATUS" >/dev/null
echo "$ENTRY" >agent
echo "$DIGEST" >digest
echo "joined $MACHINE" >>"$WORLD/log"
echo "$DIGEST"
exit 0
"""
LEAVE = r"""
if [ ! -e owner ]; then echo not-joined; exit 0; fi
if [ "$(cut -d ' ' -f 1-4 owner)" != "$OWNER" ]; then set -- $(cat owner); echo "not-ours $1/$2 $3"; exit 0; fi
ask leave
if [ -e agent ]; then entries delete workloadentry "$(cat agent)" --ignore-not-found >/dev/null; fi
rm -f owner agent digest
echo "left $MACHINE" >>"$WORLD/log"
echo left
exit 0
"""


def join_script(bundle: Any, token: str, _credentials: str, standing: Any) -> str:
    """Stand in for `bundle.join_script`."""
    assert token.count(".") == 2, "a token of a service account"
    owner = bundle.owner
    overrides = next(file.text for file in bundle.files if file.path.endswith("overrides.env"))
    address = re.search(r"INSTANCE_IP='?([0-9.]+)", overrides)
    assert address and owner.registration in overrides, overrides
    names = _module("names")
    entry = names.entry_name(owner.workload, address[1], "pods")
    manifest = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": entry,
            "labels": {names.REGISTRATION_LABEL: owner.registration, names.MACHINE_LABEL: owner.machine},
            "annotations": {names.CONNECTED_ANNOTATION: "now", names.GROUP_ANNOTATION: owner.workload},
        },
        "spec": {"address": address[1]},
    }
    status = {"status": {"conditions": [{"type": "Healthy", "status": "True"}]}}
    place = f"{address[1]} {owner.namespace} {owner.workload}"
    values = {"ENTRY": entry, "PLACE": place, "DIGEST": _module("machines.bundle").digest(bundle)}
    standings = {name: "1" if standing.name == name else "" for name in ("KEPT_OUT", "NO_ENTRY", "OTHER_ENTRY")}
    return _text(owner, JOIN, **values, **standings, MANIFEST=_json(manifest), STATUS=_json(status))


def leave_script(owner: Any) -> str:
    """Stand in for `bundle.leave_script`."""
    return _text(owner, LEAVE)


def _text(owner: Any, script: str, **variables: str) -> str:
    stamp = f"{owner.project} {owner.stack} {owner.machine} {owner.registration}"
    all_ = {"MACHINE": owner.machine, "NAMESPACE": owner.namespace, "OWNER": stamp, **variables}
    return str(_module("shell").assignments(all_)) + COMMON + f"main() {{\n{script}\n}}\nmain; exit\n"


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def _module(name: str) -> Any:
    return importlib.import_module(f"istio_vm_mesh.{name}")


def main(runner: str, script: str, *rest: str) -> None:
    """Run `script` as `runner` would."""
    spec = importlib.util.spec_from_file_location("runner", Path(runner))
    assert spec and spec.loader
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    module = run.load(script)
    for name in ("join_script", "leave_script"):
        if hasattr(module, name):
            setattr(module, name, globals()[name])
    if hasattr(module, "shell"):
        module.shell.run_as_root = lambda text, *_: text
    run.load("local/scripting.py").main(module, *rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
