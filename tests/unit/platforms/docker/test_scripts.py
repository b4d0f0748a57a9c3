"""What the platform `docker` runs beside Pulumi."""

from __future__ import annotations

import io
import socket
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.local import cluster_access, scripting, update_id
from components.platforms.docker.scripts import (
    attach_network,
    create_cluster,
    create_machine,
    create_network,
    delete_cluster,
    detach_network,
    load_images,
    remove,
)
from tests.support.fake_programs import Programs

NETWORK = create_network.Payload("n", "172.31.6.0/24", "172.31.6.0/25", "istio-vm-mesh.stack=lab")
MACHINE = create_machine.Payload(
    name="istio-vm-mesh-lab-product-1",
    hostname="product-1",
    image="machine:1",
    network="near",
    second_network=None,
    first="172.31.6.129",
    last="172.31.6.254",
    label="istio-vm-mesh.stack=lab",
    public_key="ssh-ed25519 AAAA",
    routes=("10.244.0.0/16 via 172.31.6.2",),
    user="admin",
)
CLUSTER = create_cluster.Payload("lab", "kindest/node:1", "near", "kind: Cluster\n")


IN_NETWORK = ("^container inspect", 0, "near \n", "")
"""The node of the cluster is in the network of the stack."""


def member(path: str, text: str) -> str:
    """A tar with one file, as `docker cp` prints it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(path)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
    return stream.getvalue().decode("latin-1")


def test_a_network_is_made_once_and_kept(programs: Programs) -> None:
    programs.add("docker", ("^network inspect", 1, "", "no such network"))
    assert create_network.run(NETWORK).name == "n"
    assert programs.lines()[-1] == (
        "docker network create --driver bridge --subnet 172.31.6.0/24 --ip-range 172.31.6.0/25 --label istio-vm-mesh.stack=lab n"
    )
    programs.add("docker", ("^network inspect", 0, "172.31.6.0/24\nlab\n", ""), ("", 1, "", "must not run"))
    assert create_network.run(NETWORK).name == "n"


@pytest.mark.parametrize(("label", "whose"), [("lab-near\n", "of the stack lab-near"), ("\n", "not of this program")])
def test_a_network_of_others_is_not_used(programs: Programs, label: str, whose: str) -> None:
    """Its removal would be theirs."""
    programs.add("docker", ("^network inspect", 0, f"172.31.6.0/24\n{label}", ""))
    with pytest.raises(scripting.Failed, match=f"Docker has a network n, which is {whose}, and it was not changed"):
        create_network.run(NETWORK)


def test_a_network_with_other_addresses_is_refused(programs: Programs) -> None:
    programs.add("docker", ("^network inspect", 0, "10.0.0.0/8\nlab\n", ""))
    with pytest.raises(scripting.Failed, match=r"exists with CIDR 10.0.0.0/8 instead of 172.31.6.0/24: remove it"):
        create_network.run(NETWORK)


def test_dockers_own_reason_is_passed_on(programs: Programs) -> None:
    programs.add("docker", ("inspect", 1, "", ""), ("create", 1, "", "Pool overlaps with other one\n"))
    with pytest.raises(scripting.Failed, match=r"Docker could not create the network n: Pool overlaps with other one"):
        create_network.run(NETWORK)


def test_a_node_is_attached_kept_apart_from_pods_and_waited_for(programs: Programs) -> None:
    payload = attach_network.Payload("node", "far", "10.244.0.0/16", "172.31.7.0/24")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f"127.0.0.1:{server.getsockname()[1]}\n"
        programs.add(
            "docker",
            ("^inspect", 0, "", ""),
            ("^port", 0, port, ""),
            ("iptables -C FORWARD -s 10.244", 1, "", ""),
        )
        assert attach_network.run(payload).address == ""
        assert "docker network connect far node" in programs.lines()
        inserted = [line for line in programs.lines() if "iptables -I" in line]
        assert inserted == [
            "docker exec node iptables -I FORWARD 1 -s 10.244.0.0/16 -d 172.31.7.0/24 -m conntrack ! --ctstate DNAT -j DROP"
        ], "the other rule is there"
        programs.add("docker", ("^inspect", 0, "172.31.7.2\n", ""), ("^port", 0, port, ""))
        before = len(programs.lines())
        assert attach_network.run(payload).address == "172.31.7.2"
        assert not any("connect" in line for line in programs.lines()[before:])


@pytest.mark.parametrize("networks", ["", "near\n", "near,far-2\n"])
def test_a_node_that_is_gone_or_not_attached_is_not_detached(programs: Programs, networks: str) -> None:
    """Docker lists no container that is missing, and of one that is there no network that is missing."""
    programs.add("docker", ("^ps", 0, networks, ""))
    detach_network.run(detach_network.Payload("node", "far"))
    assert not any("disconnect" in line for line in programs.lines())


def test_a_node_is_detached_and_a_failure_is_passed_on(programs: Programs) -> None:
    payload = detach_network.Payload("node", "far")
    programs.add("docker", ("^ps", 0, "near,far\n", ""))
    detach_network.run(payload)
    assert programs.lines()[-1] == "docker network disconnect --force far node"
    programs.add("docker", ("^ps", 0, "near,far\n", ""), ("disconnect", 1, "", "driver failed\n"))
    with pytest.raises(scripting.Failed, match="Docker could not detach node from far: driver failed"):
        detach_network.run(payload)
    programs.add("docker", ("^ps", 1, "", "Cannot connect to the Docker daemon\n"))
    with pytest.raises(scripting.Failed, match="Docker does not list node: Cannot connect to the Docker daemon"):
        detach_network.run(payload)


def test_a_cluster_that_kind_completed_is_kept(programs: Programs) -> None:
    programs.add("kind", ("get clusters", 0, "lab\n", ""), ("get kubeconfig", 0, "kubeconfig-text\n", ""))
    programs.add("docker", IN_NETWORK, ("^inspect", 0, "172.31.6.2\n", ""))
    programs.add("kubectl")
    assert create_cluster.run(CLUSTER) == create_cluster.Result("kubeconfig-text\n", "172.31.6.2")
    assert not any("create" in line or "delete" in line for line in programs.lines("kind"))
    (kubectl,) = programs.calls("kubectl")
    assert kubectl.files == ("kubeconfig-text\n",)


def test_a_cluster_that_a_killed_run_left_is_made_again(programs: Programs, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    programs.add_script(
        "kind",
        "import os, sys\n"
        f"there = '{there}'\n"
        "words = ' '.join(sys.argv[1:])\n"
        "with open(there + '.log', 'a') as log: log.write(words + '\\n')\n"
        "if words == 'get clusters' and os.path.exists(there): print('lab')\n"
        "if words.startswith('delete'): os.remove(there)\n"
        "if words.startswith('create'):\n"
        "    open(there, 'w').close()\n"
        "    open(there + '.config', 'w').write(sys.stdin.read() + os.environ['KIND_EXPERIMENTAL_DOCKER_NETWORK'])\n",
    )
    programs.add("docker", ("test -e", 1, "", ""), IN_NETWORK, ("^inspect", 0, "172.31.6.2\n", ""))
    create_cluster.run(CLUSTER)
    words = [line.split()[0] for line in (tmp_path / "there.log").read_text().splitlines() if "get" not in line]
    assert words == ["delete", "create"]
    assert (tmp_path / "there.config").read_text() == "kind: Cluster\nnear"
    assert any("touch" in line for line in programs.lines("docker"))


def test_a_cluster_that_kind_completed_is_not_deleted_while_it_is_not_ready(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be slow, or just started: what is in it is lost with it."""
    monkeypatch.setattr(create_cluster, "READY_S", 0)
    monkeypatch.setattr(create_cluster, "PAUSE_S", 0)
    programs.add("kind", ("get clusters", 0, "lab\n", ""), ("get kubeconfig", 0, "kubeconfig-text\n", ""))
    programs.add("docker", ("^inspect", 0, "172.31.6.2\n", ""))
    programs.add("docker", IN_NETWORK)
    programs.add("kubectl", ("wait", 1, "", "error: timed out waiting for the condition on nodes/lab-control-plane\n"))
    with pytest.raises(scripting.Failed, match=r"the kind cluster lab exists, and its node is not ready.*timed out waiting.*delete it"):
        create_cluster.run(CLUSTER)
    programs.add("kind", ("get clusters", 0, "lab\n", ""), ("get kubeconfig", 1, "", "ERROR: no such container\n"))
    with pytest.raises(scripting.Failed, match="kind has no kubeconfig of lab"):
        create_cluster.run(CLUSTER)
    assert not any("create" in line or "delete" in line for line in programs.lines("kind"))


def test_a_node_that_is_stopped_is_started_before_it_is_judged(programs: Programs, tmp_path: Path) -> None:
    programs.add("kind", ("get clusters", 0, "lab\n", ""), ("get kubeconfig", 0, "kubeconfig-text\n", ""))
    runs = tmp_path / "runs"
    programs.add_script(
        "docker",
        "import os, sys\n"
        f"runs, words = {str(runs)!r}, sys.argv[1:]\n"
        "if words[0] == 'start': open(runs, 'w').close()\n"
        "if words[0] == 'exec' and not os.path.exists(runs): sys.exit('container is not running')\n"
        "if words[0] == 'inspect': print('172.31.6.2')\n"
        "if words[0] == 'container': print('near')\n",
    )
    programs.add("kubectl")
    assert create_cluster.run(CLUSTER).address == "172.31.6.2"
    assert not any("delete" in line for line in programs.lines("kind"))


def test_a_cluster_of_others_is_left_as_it_is(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    """A person may have created one of that name. Its node is in kind's own network."""
    programs.add("kind", ("get clusters", 0, "lab\n", ""))
    programs.add("docker", ("^container inspect", 0, "kind \n", ""), ("^ps", 0, "0123\n", ""))
    with pytest.raises(scripting.Failed, match=r"kind has a cluster lab, which is not of this program: .* not in the Docker network near"):
        create_cluster.run(CLUSTER)
    delete_cluster.run(delete_cluster.Payload("lab", "near"))
    assert "the kind cluster lab is not of this program by now, and stays" in capsys.readouterr().err
    assert set(programs.lines("kind")) == {"kind get clusters"}


def test_kinds_last_words_are_passed_on(programs: Programs) -> None:
    programs.add("kind", ("^create", 1, "", "ERROR: failed to create cluster: no image\n"))
    programs.add("docker")
    with pytest.raises(scripting.Failed, match=r"(?s)no image\nkind could not create the cluster lab from kindest/node:1"):
        create_cluster.run(CLUSTER)


def test_a_cluster_goes_with_its_kubeconfig(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(update_id, "of_pulumi", lambda: "u-1")
    programs.add("kind", ("get kubeconfig", 0, "canary-kubeconfig", ""), ("delete", 1, "", "ERROR: failed to delete cluster\n"))
    programs.add("docker", ("^ps", 0, "0123\n", ""), IN_NETWORK)
    cluster_access.read_kind_kubeconfig("lab")
    (file,) = (tmp_path / "state").rglob("*.json")
    with pytest.raises(scripting.Failed, match="kind could not delete the cluster lab: ERROR: failed to delete cluster"):
        delete_cluster.run(delete_cluster.Payload("lab", "near"))
    assert file.exists(), "a cluster that is still there"
    programs.add("kind", ("delete cluster --name lab$", 0, "", ""))
    for _ in range(2):
        delete_cluster.run(delete_cluster.Payload("lab", "near"))
    assert not (tmp_path / "state/istio-vm-mesh").exists()


def test_images_are_loaded_or_the_reason_is_said(programs: Programs) -> None:
    programs.add("kind")
    load_images.run(load_images.Payload("lab", ("a:1", "b:2")))
    assert programs.lines() == ["kind load docker-image --name lab a:1 b:2"]
    programs.add("kind", ("", 1, "", 'ERROR: image: "a:1" not present locally\n'))
    with pytest.raises(scripting.Failed, match='image: "a:1" not present locally'):
        load_images.run(load_images.Payload("lab", ("a:1",)))


@pytest.fixture
def engine(programs: Programs) -> Programs:
    """A Docker engine in which the machine can be made; a call of ssh-keygen makes a key."""
    programs.add_script(
        "ssh-keygen",
        "import sys\n"
        "path = sys.argv[-1]\n"
        "open(path, 'w').write('canary-host-key')\n"
        "open(path + '.pub', 'w').write('ssh-ed25519 HOSTKEY comment')\n",
    )
    programs.add("docker", *rules())
    return programs


INSPECT = "inspect --format {{.State.Status}}"


def rules(taken: str = "", start: tuple[int, str] = (0, "")) -> list[tuple[str, int, str, str]]:
    return [
        (INSPECT, 1, "", "no such container"),
        ("inspect --format {{.Id}}", 0, "0123 172.31.6.200\n", ""),
        ("^create", 0, "4567\n", ""),
        ("^network inspect", 0, taken, ""),
        ("cp .*:/etc/passwd", 0, member("passwd", "root:x:0:0::/root:/bin/sh\nadmin:x:1007:1007::/home/admin:/bin/sh\n"), ""),
        ("cp .*_key.pub -", 0, member("key.pub", "ssh-ed25519 HOSTKEY comment\n"), ""),
        ("^start", start[0], "", start[1]),
    ]


def address_of(engine: Programs) -> str:
    words = next(call.words for call in reversed(engine.calls("docker")) if call.words[1] == "create")
    return words[words.index("--ip") + 1]


def test_a_machine_has_a_pinned_host_key_our_key_and_routes(engine: Programs) -> None:
    result = create_machine.run(MACHINE)
    assert result == create_machine.Result("4567", address_of(engine), "ssh-ed25519 HOSTKEY")
    (copied,) = (call for call in engine.calls("docker") if call.words[1:3] == ("cp", "-"))
    with tarfile.open(fileobj=io.BytesIO(copied.stdin.encode("latin-1"))) as archive:
        files = {entry.name: entry for entry in archive}
        unit = archive.extractfile("etc/systemd/system/routes.service")
        assert unit and b"ExecStart=/sbin/ip route replace 10.244.0.0/16 via 172.31.6.2\n" in unit.read()
        keys = archive.extractfile("home/admin/.ssh/authorized_keys")
        assert keys and keys.read() == b"ssh-ed25519 AAAA\n"
    assert oct(files["etc/ssh/ssh_host_ed25519_key"].mode) == "0o600"
    assert files["etc/systemd/system/multi-user.target.wants/routes.service"].linkname == "/etc/systemd/system/routes.service"
    login = {name: (oct(entry.mode), entry.uid) for name, entry in files.items() if name.startswith("home")}
    assert login == {"home/admin/.ssh": ("0o700", 1007), "home/admin/.ssh/authorized_keys": ("0o600", 1007)}
    assert not any("canary-host-key" in line for line in engine.lines())


def test_machines_leave_processors_to_the_cluster(engine: Programs) -> None:
    """The node's container has Docker's weight, 1024, because kind creates it."""
    create_machine.run(MACHINE)
    words = next(call.words for call in engine.calls("docker") if call.words[1] == "create")
    assert int(words[words.index("--cpu-shares") + 1]) <= 1024 // 4


@pytest.mark.parametrize(("label", "whose"), [("lab-product\n", "of the stack lab-product"), ("\n", "not of this program")])
@pytest.mark.parametrize("identity", [MACHINE.identity, "another"])
def test_a_container_of_others_is_left_as_it_is(engine: Programs, label: str, whose: str, identity: str) -> None:
    """Neither removed nor opened for another key: the networks of two stacks may have one name too."""
    engine.add("docker", (INSPECT, 0, f"running\n{identity}\n{label}", ""), *rules())
    with pytest.raises(scripting.Failed, match=f"{MACHINE.name}, which is {whose}"):
        create_machine.run(MACHINE)
    assert [line.split()[1] for line in engine.lines()] == ["container"], "it was inspected alone"


@pytest.mark.slow
def test_a_container_that_a_killed_run_of_this_stack_left_is_made_again(engine: Programs) -> None:
    engine.add("docker", (INSPECT, 0, f"created\n{MACHINE.identity}\nlab\n", ""), *rules())
    create_machine.run(MACHINE)
    assert f"docker rm --force --volumes {MACHINE.name}" in engine.lines()


def test_a_new_machine_takes_few_calls_of_docker(engine: Programs) -> None:
    """Each takes a process and the engine some 50 ms of a processor, and ten machines are created at once."""
    create_machine.run(MACHINE)
    assert len(engine.lines("docker")) == 6


@pytest.mark.slow
def test_a_machines_address_follows_from_its_name(engine: Programs) -> None:
    create_machine.run(MACHINE)
    first = address_of(engine)
    create_machine.run(MACHINE)
    assert address_of(engine) == first
    create_machine.run(replace(MACHINE, name="istio-vm-mesh-lab-product-2"))
    assert address_of(engine) != first
    engine.add("docker", *rules(taken=f"172.31.6.2/24 {first}/24 "))
    create_machine.run(MACHINE)
    assert address_of(engine) not in (first, "172.31.6.2")


@pytest.mark.slow
def test_an_address_that_another_machine_took_meanwhile_is_left_out(engine: Programs) -> None:
    few = replace(MACHINE, first="172.31.6.129", last="172.31.6.131")
    engine.add("docker", *rules(start=(1, "Error: Address already in use")))
    with pytest.raises(scripting.Failed, match=r"machine product-1: no address is free from 172.31.6.129 to 172.31.6.131"):
        create_machine.run(few)
    tried = {call.words[call.words.index("--ip") + 1] for call in engine.calls("docker") if call.words[1] == "create"}
    assert tried == {"172.31.6.129", "172.31.6.130", "172.31.6.131"}


@pytest.mark.slow
def test_any_other_failure_to_start_is_final(engine: Programs) -> None:
    engine.add("docker", *rules(start=(1, "cgroup mountpoint does not exist")))
    with pytest.raises(scripting.Failed, match=r"machine product-1: Docker cannot start it: cgroup mountpoint"):
        create_machine.run(MACHINE)
    assert sum(call.words[1] == "create" for call in engine.calls("docker")) == 1
    assert engine.lines()[-1] == "docker rm --force --volumes istio-vm-mesh-lab-product-1", "nothing is left behind"


def test_an_image_without_the_login_is_named(engine: Programs) -> None:
    with pytest.raises(scripting.Failed, match=r"its image machine:1 has no user nobody"):
        create_machine.run(replace(MACHINE, user="nobody"))


@pytest.mark.slow
def test_a_second_network_is_attached_before_the_start(engine: Programs) -> None:
    create_machine.run(replace(MACHINE, second_network="far"))
    lines = engine.lines("docker")
    connected = lines.index("docker network connect far istio-vm-mesh-lab-product-1")
    assert connected < lines.index("docker start istio-vm-mesh-lab-product-1")


def recreated(engine: Programs, payload: create_machine.Payload, state: str) -> bool:
    """Whether a machine's container is removed and created, where Docker describes it by `state`."""
    engine.add("docker", (INSPECT, 0, f"{state}\n{payload.label.partition('=')[2]}\n", ""), *rules()[1:])
    before = len(engine.lines())
    assert create_machine.run(payload).host_key == "ssh-ed25519 HOSTKEY"
    lines = engine.lines()[before:]
    assert [line.startswith(("docker rm", "docker create")) for line in lines].count(True) in (0, 2)
    return any(line.startswith("docker create") for line in lines)


def test_a_machine_that_runs_is_kept_and_another_is_made_again(engine: Programs) -> None:
    """A command whose line or payload changed runs again, and must not lose a machine."""
    create_machine.run(MACHINE)
    create = next(call.words for call in engine.calls("docker") if call.words[1] == "create")
    label = next(word for word in create if word.startswith("istio-vm-mesh.identity="))
    identity = label.partition("=")[2]
    assert not recreated(engine, MACHINE, f"running\n{identity}")
    assert recreated(engine, MACHINE, f"created\n{identity}")
    assert recreated(engine, MACHINE, "running\nanother")


def test_a_machine_that_is_stopped_keeps_its_disk_and_is_started(engine: Programs) -> None:
    """Its command runs again where its line changed, as after a new version of this program."""
    assert not recreated(engine, MACHINE, f"exited\n{MACHINE.identity}")
    assert engine.lines().count(f"docker start {MACHINE.name}") == 1
    engine.add("docker", (INSPECT, 0, f"exited\n{MACHINE.identity}\nlab\n", ""), *rules(start=(1, "Error: Address already in use"))[1:])
    with pytest.raises(scripting.Failed, match="machine product-1: Docker cannot start its container: Error: Address already in use"):
        create_machine.run(MACHINE)
    assert not any("docker rm" in line for line in engine.lines())


@pytest.mark.parametrize(("kind", "removal"), [(remove.CONTAINER, "rm --force --volumes"), (remove.NETWORK, "network rm")])
def test_only_what_is_of_the_stack_is_removed(programs: Programs, capsys: pytest.CaptureFixture[str], kind: str, removal: str) -> None:
    """A person may have removed it, and given its name to something else."""
    payload = remove.Payload(kind, "x", "istio-vm-mesh.stack=lab")
    listing = 'name=^x$ --format {{.ID}} {{.Label "istio-vm-mesh.stack"}}'
    for listed, stays in (("", ""), ("0123 \n", "not of this program"), ("0123 lab-near\n", "of the stack lab-near")):
        programs.add("docker", (listing, 0, listed, ""))
        remove.run(payload)
        assert capsys.readouterr().err == (f"the {kind} x is {stays} by now, and stays\n" if stays else "")
    assert not any(" rm " in line for line in programs.lines())
    programs.add("docker", (listing, 0, "0123 lab\n", ""))
    remove.run(payload)
    assert programs.lines()[-1] == f"docker {removal} 0123"
    programs.add("docker", (listing, 1, "", "Cannot connect to the Docker daemon"))
    with pytest.raises(scripting.Failed, match=f"Docker does not list the {kind} x: Cannot connect"):
        remove.run(payload)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"image": "machine:2"}, {"network": "x"}, {"second_network": "x"}, {"routes": ()}],
    ids=str,
)
def test_what_docker_fixes_makes_another_machine(engine: Programs, change: dict[str, Any]) -> None:
    assert recreated(engine, replace(MACHINE, **change), f"running\n{MACHINE.identity}")


@pytest.mark.parametrize(
    "change",
    [{"public_key": "ssh-ed25519 BBBB"}, {"first": "172.31.6.200"}, {"label": "another=form"}],
    ids=str,
)
def test_all_else_changes_in_place(engine: Programs, change: dict[str, Any]) -> None:
    payload = replace(MACHINE, **change)
    assert not recreated(engine, payload, f"running\n{MACHINE.identity}")
    *_, login = (call for call in engine.calls("docker") if call.words[1:3] == ("cp", "-"))
    assert payload.public_key in login.stdin
