"""Hosts on one machine: network, UTS, PID and mount namespaces, which root may make."""

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.forks import REPOSITORY, Driver, driver

SERVER = "10.91.{}.1"  # of the network to each host, by its number
NO_LOCKS = "import fcntl\nfcntl.flock = lambda *_: None\n"  # locks that reach no other host


def reason() -> str | None:
    """Why there can be no hosts here; None if there can."""
    if os.getuid() != 0:
        return "only root may make namespaces"
    if missing := [name for name in ("ip", "unshare") if shutil.which(name) is None]:
        return f"{missing[0]} is not installed"
    done = subprocess.run([*_namespaces("x"), "true"], capture_output=True, text=True)
    return f"this machine has no namespaces: {done.stderr}" if done.returncode else None


def _namespaces(hostname: str, *mounts: tuple[Path, Path]) -> list[str]:
    """Begin of a command that runs as process 1 of a machine of this name.

    Args:
        mounts: folders of its own, and where they are for it.
    """
    script = f"hostname {hostname}; ip link set lo up; "
    script += "".join(f"mount --bind '{own}' '{place}'; " for own, place in mounts)
    isolated = ["--uts", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
    return ["unshare", *isolated, "sh", "-c", script + 'exec "$@"', "sh"]


@contextlib.contextmanager
def machine(hostname: str) -> Iterator[list[str]]:
    """Begin of a command on a machine without a network."""
    yield ["unshare", "--net", *_namespaces(hostname)]


def machine_in(namespace: str, hostname: str) -> list[str]:
    """Begin of a command on a machine in this network, which dies with the command."""
    return ["ip", "netns", "exec", namespace, *_namespaces(hostname)]


@contextlib.contextmanager
def network(size: int) -> Iterator[tuple[str, list[str]]]:
    """Names of a server's network namespace, and those of so many hosts that reach it alone."""
    own = uuid.uuid4().hex[:6]
    names = [f"caltech-{own}-{number}" for number in range(size + 1)]
    server, hosts = names[0], names[1:]
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        for number, host in enumerate(hosts):
            ours, theirs = f"s{number}", f"h{number}"
            peer = ["peer", "name", theirs, "netns", host]
            _ip("link", "add", ours, "netns", server, "type", "veth", *peer)
            for name, link, last in ((server, ours, 1), (host, theirs, 2)):
                _ip("-n", name, "addr", "add", f"10.91.{number}.{last}/24", "dev", link)
                _ip("-n", name, "link", "set", link, "up")
        yield server, hosts
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def host(
    folder: Path,
    hostname: str,
    namespace: str | None = None,
    mounts: Sequence[tuple[Path, Path]] = (),
    has_locks: bool = True,
) -> Iterator[Driver]:
    """A machine that runs commands in `folder`, which must be there.

    Args:
        namespace: of its network; None for one without.
        has_locks: whether its file locks are known to others.
    """
    (own := folder / uuid.uuid4().hex[:6]).mkdir()
    path = str(REPOSITORY)
    if not has_locks:
        (own / "sitecustomize.py").write_text(NO_LOCKS)
        path = f"{own}:{path}"
    net = ["unshare", "--net"] if namespace is None else ["ip", "netns", "exec", namespace]
    with driver(own, [*net, *_namespaces(hostname, *mounts)], PYTHONPATH=path) as started:
        yield started
