"""Machines that are one computer: each a network namespace with an address, a cable to the first, and a plug.

Linux only, as root; the commands are those of Debian's iproute2 and util-linux.
"""

import ctypes
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

SUBNET = "10.77.0"
CLONE_NEWNET = 0x40000000
"""linux/sched.h"""


@dataclass(frozen=True)
class Machine:
    name: str
    address: str

    def command(self, *words: str) -> tuple[str, ...]:
        """What runs `words` on this machine."""
        return ("nsenter", f"--net=/run/netns/{self.name}", *words)


class Network:
    """The first machine is this process's own, once `lan` has begun."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.machines = machines

    def cut(self, machine: Machine) -> None:
        """Pulls the plug: what is on the way is lost, and nobody is told."""
        _ip("link", "set", f"to-{machine.name}", "down")

    def mend(self, machine: Machine) -> None:
        _ip("link", "set", f"to-{machine.name}", "up")


@contextmanager
def lan(*names: str) -> Iterator[Network]:
    """Raises OSError where namespaces cannot be made (no root, no Linux)."""
    machines = [Machine(name, f"{SUBNET}.{number}") for number, name in enumerate(names, start=1)]
    with ExitStack() as made:
        for machine in machines:
            _ip("netns", "add", machine.name)
            made.callback(_ip, "netns", "delete", machine.name)
            _ip("-n", machine.name, "link", "set", "lo", "up")
        first, *others = machines
        _enter(first)
        _ip("link", "add", "lan", "type", "bridge")
        _ip("address", "add", f"{first.address}/24", "dev", "lan")
        _ip("link", "set", "lan", "up")
        for machine in others:
            cable = f"to-{machine.name}"
            _ip("link", "add", cable, "type", "veth", "peer", "eth0", "netns", machine.name)
            _ip("link", "set", cable, "master", "lan", "up")
            _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", "eth0")
            _ip("-n", machine.name, "link", "set", "eth0", "up")
        yield Network(machines)


def _enter(machine: Machine) -> None:
    """This thread, and what it starts from now on, is on that machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", machine.name).open() as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {machine.name}")


def _ip(*words: str) -> None:
    try:
        subprocess.run(("ip", *words), check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"ip {' '.join(words)}: {error.stderr.strip()}") from error
