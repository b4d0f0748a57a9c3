"""What is run beside Pulumi for machines: the stack's key."""

from __future__ import annotations

from components.machines.scripts import create_ssh_key
from tests.support.fake_programs import Programs


def test_a_key_pair_is_made(programs: Programs) -> None:
    programs.add_script(
        "ssh-keygen",
        "import sys\n"
        "open(sys.argv[-1], 'w').write('PRIVATE\\n')\n"
        "open(sys.argv[-1] + '.pub', 'w').write('ssh-' + sys.argv[sys.argv.index('-t') + 1] + ' AAAA ' + sys.argv[sys.argv.index('-C') + 1] + '\\n')\n",
    )
    pair = create_ssh_key.run(create_ssh_key.Payload("mesh"))
    assert pair == create_ssh_key.Result("PRIVATE\n", "ssh-ed25519 AAAA mesh")
    assert create_ssh_key.run(create_ssh_key.Payload("mesh", "ecdsa")).public == "ssh-ecdsa AAAA mesh"
