"""After everything: nothing secret was seen anywhere, and `down` leaves nothing of the lab and everything of others."""

from __future__ import annotations

from tests.lab.environment import CHECKOUT, Lab


def test_nothing_secret_was_on_a_command_line_in_an_environment_or_in_a_log(lab: Lab) -> None:
    secrets = lab.secrets()
    assert {"product-1-token", "SSH key", "key of the kubeconfig"} <= set(secrets)
    assert any(b"kind\0create\0cluster" in text for text in lab.watch.seen)
    assert not [what for what, text in secrets.items() if any(text.encode() in seen for seen in lab.watch.seen)]
    assert any("product-1-join" in log for log in lab.logs)
    assert not [what for what, text in secrets.items() if any(text in log for log in [*lab.logs, lab.output])]
    state = lab.state(secrets=False)
    assert "product-1-join" in state
    assert not [what for what, text in secrets.items() if text in state]
    for directory in (".lab/state", ".lab/home", ".lab/logs"):
        assert (lab.root / directory).stat().st_mode & 0o077 == 0


def test_down_removes_all_of_the_lab_and_nothing_of_another(lab: Lab) -> None:
    image = lab.resource("product-1-container")["inputs"]["triggers"][0]
    other = f"istio-vm-mesh-other-{CHECKOUT}"
    lab.docker("network", "create", "--label", "istio-vm-mesh.stack=other", f"{other}-pods")
    lab.docker("run", "--detach", "--name", f"{other}-machine", "--network", f"{other}-pods", "--entrypoint", "sleep", image, "infinity")
    try:
        output = lab.lab("down").stdout
        assert "Command cluster-kind deleted" in output
        running = set(lab.docker("ps", "--format", "{{.Names}}").split())
        assert {"istio-vm-mesh-packages", f"{other}-machine"} <= running
    finally:
        lab.docker("rm", "--force", f"{other}-machine")
        lab.docker("network", "rm", f"{other}-pods")
    assert not [name for name in lab.docker("ps", "--all", "--format", "{{.Names}}").split() if f"istio-vm-mesh-{lab.stack}-" in name]
    networks = lab.docker("network", "ls", "--format", "{{.Name}}").split()
    assert not [name for name in networks if f"istio-vm-mesh-{lab.stack}-" in name]
    assert sorted(path.name for path in (lab.root / ".lab").iterdir()) == ["logs", "run"]
