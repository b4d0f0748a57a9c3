"""How the user who runs this program reaches a cluster: by a path and a context, no credential."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..manifest import Manifest
from . import private_files, scripting, update_id

UID_OF = "kube-system"
"""The namespace whose UID identifies a cluster. Every cluster has it, and it is never replaced."""


@dataclasses.dataclass(frozen=True)
class ClusterAccess:
    """How to reach a cluster. It holds no credential, and is the same for everybody.

    context: the context of the kubeconfig; None: its current context.
    path: the kubeconfig of the user who runs this; `~` is their home directory. None: as kubectl finds
        it ($KUBECONFIG, ~/.kube/config).
    text: a kubeconfig's text, without credentials, in place of a path.
    kind: the name of a cluster of kind on this computer, whose kubeconfig kind gives.
    uid: the UID of the namespace kube-system that the cluster must have; None: any cluster.
    """

    context: str | None = None
    path: str | None = None
    text: str | None = None
    kind: str | None = None
    uid: str | None = None

    @property
    def place(self) -> str:
        """Where the access comes from, for messages."""
        if self.kind is not None:
            return f"the kind cluster {self.kind}"
        context = "the current context" if self.context is None else f"the context {self.context}"
        if self.text is not None:
            return f"{context} of the cluster's kubeconfig"
        return f"{context} of {self.path or os.environ.get('KUBECONFIG') or '~/.kube/config'}"


class OtherCluster(scripting.Failed):
    """The cluster that answers is not the one that is meant."""


class Unreachable(scripting.Failed):
    """The cluster's API server does not answer."""


_NO_ANSWER = re.compile(
    r"connection refused|was refused|no such host|no route to host|network is unreachable|i/o timeout|"
    r"timeout exceeded|deadline exceeded|handshake timeout|connection reset|Unable to connect|\bEOF\b",
    re.IGNORECASE,
)
"""What kubectl prints where nothing answers; it prints other words where the API server refuses."""


_WITHOUT_PREFERENCES = {"KUBERC": "off", "KUBECTL_KUBERC": "false"}
"""Other defaults of options are in a person's ~/.kube/kuberc. `delete --interactive`, which
Kubernetes' documents have as their example, deletes nothing here and succeeds.
"""
_LATE_COLLECTION = {"GOGC": "off", "GOMEMLIMIT": "256MiB"}
"""Go collects no garbage below this limit. kubectl otherwise spends a fifth of its processor time
on that, and has ended before it needs the memory.
"""
FROM_STDIN = ("--filename", "-", "--validate=ignore")
"""Options of `apply`, `create` and `replace` for objects on stdin.

Without `--validate=ignore`, kubectl first reads OpenAPI documents of the cluster. For a List it reads
the whole of version 2, which describes every kind. It gives up after 32 s, and a busy API server
may need longer (kubernetes/cli-runtime: pkg/resource, `queryParamVerifierV3`;
kubernetes/client-go: discovery, `defaultTimeout`).

With it, the API server still validates the objects. `apply --server-side` still refuses unknown
fields; `create` and `replace` drop them, and those objects are written by this program.
"""


class Kubectl:
    """kubectl for one cluster, without the preferences of the user who runs this."""

    def __init__(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self._words, self._environment = ["kubectl", *options], {**(environment or {}), **_WITHOUT_PREFERENCES, **_LATE_COLLECTION}

    def call(self, *words: str, stdin: bytes = b"", timeout_s: float | None = None) -> scripting.Done:
        """Run kubectl, and return how it ended."""
        command = [*self._words, *words]
        return scripting.call(command, stdin=stdin, timeout_s=timeout_s, environment=self._environment)

    def check(self, *words: str, purpose: str, stdin: bytes = b"", timeout_s: float | None = None) -> scripting.Done:
        """Run kubectl, which must succeed.

        Raises scripting.Failed with `purpose` and kubectl's last words.
        """
        command = [*self._words, *words]
        return scripting.check(command, purpose, stdin=stdin, timeout_s=timeout_s, environment=self._environment)

    def json(self, *words: str) -> Any:
        """Run kubectl, and return the object that it printed; None where it failed."""
        done = self.call("--request-timeout=20s", *words, "--output", "json", timeout_s=60)
        return json.loads(done.text) if done.status == 0 and done.text else None


@contextlib.contextmanager
def kubectl(access: ClusterAccess, environment: Mapping[str, str] | None = None) -> Iterator[Kubectl]:
    """Give a kubectl for a cluster, with the credentials of the user who runs this.

    access: the cluster. environment: variables beside those of this process.

    Raises scripting.Failed where the cluster does not answer or kind does not know it, and
    OtherCluster where `access.uid` is not the UID of the cluster.
    """
    with unchecked_kubectl(moved(access), environment) as program:
        if access.uid is not None:
            _check_uid(access, cluster_uid(program, access))
        yield program


def _check_uid(access: ClusterAccess, uid: str) -> None:
    if uid != access.uid:
        raise OtherCluster(
            f"{moved(access).place} leads to another cluster: the UID of its namespace "
            f"{UID_OF} is {uid}, and that of the stack's cluster is {access.uid}"
        )


@contextlib.contextmanager
def unchecked_kubectl(access: ClusterAccess, environment: Mapping[str, str] | None = None) -> Iterator[Kubectl]:
    """Give a kubectl for whatever cluster answers; see `kubectl`."""
    context = [] if access.context is None else ["--context", access.context]
    text = access.text if access.kind is None else _kind_kubeconfig(access.kind, environment)
    if text is None:
        path = [] if access.path is None else ["--kubeconfig", os.path.expanduser(access.path)]
        yield Kubectl(*path, *context, environment=environment)
        return
    with scripting.private_directory() as directory:
        file = directory / "kubeconfig"
        scripting.write_private(file, text)
        yield Kubectl("--kubeconfig", str(file), *context, environment=environment)


def _kind_kubeconfig(name: str, environment: Mapping[str, str] | None) -> str:
    """Return the kubeconfig of a kind cluster, as kind has given it once in this update.

    kind looks into the cluster's node for it, which takes longer than most calls of kubectl.
    """
    update = update_id.of_pulumi()
    # Without a note that can be read, kind prints it again.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        noted = json.loads(private_files.path_of(_kind_file(name)).read_text())
        if update and noted["update"] == update:
            return str(noted["text"])
    return read_kind_kubeconfig(name, environment)


def read_kind_kubeconfig(name: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the kubeconfig of a kind cluster, and keep it for other scripts of this update.

    Raises scripting.Failed where kind does not know the cluster.
    """
    words = ["kind", "get", "kubeconfig", "--name", name]
    done = scripting.check(words, f"kind has no kubeconfig of {name}", environment=environment)
    text = done.stdout.decode()
    if update := update_id.of_pulumi():
        with contextlib.suppress(OSError):  # a directory that cannot be written costs time alone
            private_files.write(_kind_file(name), json.dumps({"update": update, "text": text}))
    return text


def forget_kind_kubeconfig(name: str) -> None:
    """Remove the kubeconfig that is kept of a kind cluster: it has a credential."""
    private_files.remove(_kind_file(name))


def _kind_file(name: str) -> str:
    return f"{private_files.PREFIX}clusters/kind-{name}.json"


@dataclasses.dataclass(frozen=True)
class ContextEntries:
    """What a kubeconfig has of one context.

    cluster: the entry of its cluster: server, certificate authority. It holds no credential.
    user: the entry of its user, with credentials.
    """

    cluster: Mapping[str, Any]
    user: Mapping[str, Any] = dataclasses.field(repr=False)


def context_entries(access: ClusterAccess) -> ContextEntries:
    """Read a context as kubectl does, certificates and keys in place of the paths of their files.

    Raises scripting.Failed where the kubeconfig has no such context, or cannot be read.
    """
    if access.path is not None and not os.path.exists(os.path.expanduser(access.path)):
        raise scripting.Failed(f"there is no kubeconfig {access.path}")
    with unchecked_kubectl(access) as program:
        words = ["config", "view", "--raw", "--flatten", "--minify", "--output", "json"]
        done = program.call(*words, timeout_s=60)
        if done.status:
            names = program.call("config", "get-contexts", "--output", "name", timeout_s=60).text
            there = f" (it has: {', '.join(sorted(names.split()))})" if names else ""
            reason = scripting.last_words(done.error)
            raise scripting.Failed(f"{access.place} cannot be used: {reason}{there}")
    document = json.loads(done.text)
    cluster, user = ((document.get(f"{kind}s") or [{}])[0].get(kind) or {} for kind in ("cluster", "user"))
    if not cluster.get("server"):
        raise scripting.Failed(f"{access.place} names no server")
    return ContextEntries(cluster, user)


def cluster_uid(program: Kubectl, access: ClusterAccess) -> str:
    """Return the UID of a cluster's namespace kube-system.

    Raises scripting.Failed where the cluster does not answer, or refuses.
    """
    words = ["--request-timeout=20s", "get", "namespace", UID_OF]
    done = program.call(*words, "--output", "jsonpath={.metadata.uid}", timeout_s=60)
    if done.status or not done.text:
        raise _without_uid(access, done)
    return done.text


def kubernetes_version(program: Kubectl) -> str:
    """Return the API server's version, with a vendor's suffix; "" where it does not give it."""
    done = program.call("--request-timeout=20s", "get", "--raw", "/version", timeout_s=60)
    try:
        return str(json.loads(done.text)["gitVersion"])
    except (ValueError, KeyError, TypeError):
        return ""


def _without_uid(access: ClusterAccess, done: scripting.Done) -> scripting.Failed:
    reason = scripting.last_words(done.error) or "there is no UID in the answer"
    hint = ""
    if access.uid is not None and "context was not found" in reason:
        hint = " (if it has another name now, `pulumi preview` notes it on this computer)"
    unreachable = done.status == scripting.TIMED_OUT or _NO_ANSWER.search(reason)
    failure = Unreachable if unreachable and "x509" not in reason else scripting.Failed
    return failure(f"{moved(access).place} leads to no cluster that can be identified: {reason}{hint}")


def read_objects(program: Kubectl, access: ClusterAccess, wanted: Sequence[Manifest]) -> tuple[dict[str, Manifest], str]:
    """Read objects of a cluster by one call, and check that it is the one that is meant.

    program: kubectl, unchecked. wanted: each with apiVersion, kind, and metadata with its name.

    Returns those that are there, by kind, and why others could not be read; "" where they could.
    Raises as `kubectl`.
    """
    namespace: Manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": UID_OF}}
    items = [*([namespace] if access.uid is not None else []), *wanted]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    words = ["--request-timeout=20s", "get", "--filename", "-", "--ignore-not-found", "--output", "json"]
    done = program.call(*words, stdin=text.encode(), timeout_s=60)
    read = json.loads(done.text) if done.text else {"items": []}
    objects: dict[str, Manifest] = {each["kind"]: each for each in read.get("items", [read])}
    if access.uid is not None:
        if "Namespace" not in objects:
            raise _without_uid(access, done)
        _check_uid(access, objects["Namespace"]["metadata"]["uid"])
    return objects, scripting.last_words(done.error) if done.status else ""


def cluster_name(access: ClusterAccess) -> str:
    """Return a cluster's name for readers; "" where only kubectl resolves it."""
    if access.kind is not None:
        return f"kind-{access.kind}"
    if access.text is not None:
        return str(json.loads(access.text)["current-context"])
    return moved(access).context or ""


def moved(access: ClusterAccess) -> ClusterAccess:
    """Return the access as this computer has it now.

    The state keeps the context and the path that a cluster was first reached by, so that a renamed
    context is no change. `note_move` writes down what they are called since.
    """
    if access.uid is None:
        return access
    try:
        note = json.loads(private_files.path_of(_note(access)).read_text())
    except (OSError, ValueError):  # there is none, or one that was cut off
        return access
    return dataclasses.replace(access, context=note["context"], path=note["path"])


def note_move(access: ClusterAccess, now: ClusterAccess) -> None:
    """Write down by which context and path a cluster is reached on this computer.

    access: as the state has it, with a UID. now: as the stack file has it.

    Raises scripting.Failed where it cannot be written.
    """
    if (access.context, access.path) == (now.context, now.path):
        private_files.remove(_note(access))
        return
    try:
        private_files.write(_note(access), json.dumps({"context": now.context, "path": now.path}))
    except OSError as error:
        raise scripting.Failed(f"what the cluster's context is called now was not noted: {error}") from None


def _note(access: ClusterAccess) -> str:
    """Return the reference of the note (`private_files`)."""
    key = json.dumps([access.uid, access.context, access.path])
    return f"{private_files.PREFIX}clusters/{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
