"""What the Slurm and the Grid Engine of the tests share: packages, a user, daemons by pid, the command line."""

from __future__ import annotations

import argparse
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: The ordinary user who submits; root is the other one.
USER = "psu"
#: Daemons and jobs inherit what starts them, so that is next to nothing.
BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/"}
NO_DAEMONS = Path("/usr/sbin/policy-rc.d")


class Trouble(Exception):  # noqa: N818  it is no error of the project but a sentence about this machine
    """Why the cluster cannot be had here."""


def say(line: str) -> None:
    """Tell the person who types; standard output is for what programs read."""
    print(line, file=sys.stderr)


def run(*argv: str, ok: bool = True, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command with its output kept; unless ``ok`` is false, its failure is ours."""
    done: subprocess.CompletedProcess[str]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    if ok and done.returncode:
        raise Trouble(
            f"{shlex.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Return whether it became true within the time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# --- packages and the user ------------------------------------------------------------------------------------


def installed(package: str) -> bool:
    """Return whether dpkg has it."""
    done = run("dpkg-query", "-W", "-f=${db:Status-Status}", package, ok=False)
    return done.stdout == "installed"


@contextmanager
def _no_daemon_starts() -> Iterator[None]:
    """Packages start the daemons that they bring, unless this file says no."""
    ours = not NO_DAEMONS.exists()
    if ours:
        NO_DAEMONS.write_text("#!/bin/sh\nexit 101\n")
        NO_DAEMONS.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            NO_DAEMONS.unlink()


def install(*packages: str) -> None:
    """Install what is missing of the packages, and make the user."""
    if not shutil.which("apt-get"):
        raise Trouble("the packages are Debian's, and this machine has no apt-get")
    if os.getuid():
        raise Trouble("only root can install packages")
    missing = [package for package in packages if not installed(package)]
    if missing:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        get = ("apt-get", "install", "--yes", "--no-install-recommends", *missing)
        with _no_daemon_starts():
            # An old list of packages names files that are gone.
            if run(*get, ok=False, env=quiet).returncode:
                run("apt-get", "update")
                run(*get, env=quiet)
    try:
        pwd.getpwnam(USER)
    except KeyError:
        run("useradd", "--create-home", "--shell", "/bin/bash", USER)


# --- daemons --------------------------------------------------------------------------------------------------


def alive(pid: int, name: str) -> bool:
    """Return whether this process is the daemon of that name: pids are used again.

    What follows a hyphen says which of several it is, and is no part of its command.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    command, _, rest = stat.partition("(")[2].rpartition(")")
    return command == name.partition("-")[0] and rest.split()[0] not in "ZX"


def written_pid(file: Path | None, name: str) -> int | None:
    """Return the pid that a daemon wrote, if it is still that daemon's."""
    try:
        pid = int(file.read_text()) if file else 0
    except (OSError, ValueError):
        return None
    return pid if pid and alive(pid, name) else None


class Cluster:
    """One scheduler on this machine; the two kinds fill in the rest."""

    #: What a person calls it, and its daemons in the order in which they start.
    title = ""
    daemons: tuple[str, ...] = ()

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    # What each kind says for itself.

    def install(self) -> None:
        """Install the packages."""
        raise NotImplementedError

    def missing(self) -> str:
        """Return why it cannot run on this machine; nothing when it can."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the variables that a client needs."""
        raise NotImplementedError

    def write(self) -> None:
        """Write the configuration of a cluster that does not run."""
        raise NotImplementedError

    def pid_file(self, name: str) -> Path | None:
        """Return where the daemon writes its pid."""
        return self.folder / "run" / f"{name}.pid"

    def launch(self, name: str) -> None:
        """Start one daemon, which does not run."""
        raise NotImplementedError

    def answers(self, name: str) -> bool:
        """Return whether the daemon does its work."""
        raise NotImplementedError

    def finish_jobs(self) -> None:
        """End what the cluster still runs."""

    def clear(self) -> None:
        """Take away what the daemons leave outside the folder."""

    def into(self) -> list[str]:
        """Return what stands before a command that must run where the cluster is."""
        return []

    # What all do.

    def pid(self, name: str) -> int | None:
        """Return the pid of a running daemon."""
        return written_pid(self.pid_file(name), name)

    def running(self) -> bool:
        """Return whether each daemon is there and the last one works."""
        return all(self.pid(name) for name in self.daemons) and self.answers(self.daemons[-1])

    def client(self, *argv: str, ok: bool = False, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a command of the scheduler as we are; one that hangs has failed."""
        whole = [*self.into(), *argv]
        try:
            return run(*whole, ok=ok, env={**BARE, **self.environment()}, timeout=timeout)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(whole, 124, "", f"nothing was heard for {timeout} s")

    def command(self, *argv: str, user: str | None = None) -> list[str]:
        """Return the arguments that run a command where the cluster is, as another user if one is named."""
        become: list[str] = []
        if user:
            home = pwd.getpwnam(user).pw_dir
            become = [
                "runuser",
                "--user",
                user,
                "--",
                "env",
                f"HOME={home}",
                f"USER={user}",
                f"LOGNAME={user}",
            ]
        return [*self.into(), *become, *argv]

    def up(self, name: str) -> None:
        """Start one daemon, unless it runs, and wait for it."""
        if self.pid(name):
            os.kill(self.pid(name) or 0, signal.SIGCONT)
        else:
            self.launch(name)
        # An sge_execd that looked for its master at a bad moment looks again a minute later.
        if not until(lambda: self.answers(name), 100):
            raise Trouble(f"{name} does not answer; look into {self.folder}")

    def kill(self, name: str, number: int = signal.SIGTERM) -> None:
        """Send a daemon a signal; wait for its end if that is what the signal means."""
        pid = self.pid(name)
        if not pid:
            return
        os.kill(pid, number)
        if number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            os.kill(pid, signal.SIGCONT)
            if not until(lambda: not alive(pid, name), 15):
                os.kill(pid, signal.SIGKILL)
                until(lambda: not alive(pid, name), 5)

    def start(self) -> None:
        """Start what does not run yet."""
        if os.getuid():
            raise Trouble("only root can start the daemons")
        if self.missing():
            raise Trouble(self.missing())
        if not any(self.pid(name) for name in self.daemons):
            # What a cluster that was killed left behind is half of something, and spoolinit refuses it.
            self.forget()
            self.write()
        # Tests hold it while they use the cluster.
        (self.folder / "lock").touch()
        for name in self.daemons:
            self.up(name)

    def stop(self) -> None:
        """End jobs and daemons, and remove the folder."""
        if os.getuid():
            raise Trouble("only root can stop the daemons")
        for name in self.daemons:
            if pid := self.pid(name):
                os.kill(pid, signal.SIGCONT)
        if any(self.pid(name) for name in self.daemons):
            self.finish_jobs()
        for name in reversed(self.daemons):
            self.kill(name, signal.SIGKILL if name == "sge_qmaster" else signal.SIGTERM)
        self.forget()

    def forget(self) -> None:
        """Remove all that is left of a cluster whose daemons do not run."""
        self.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def main(cluster: Cluster) -> int:
    """Obey a command line."""
    parser = argparse.ArgumentParser(description=type(cluster).__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("install", "start", "stop", "status", "env"):
        verbs.add_parser(verb)
    for verb in ("pid", "up", "kill"):
        verbs.add_parser(verb).add_argument("daemon", choices=cluster.daemons)
    verbs.choices["kill"].add_argument("signal", nargs="?", default="TERM")
    within = verbs.add_parser("run", help="run a command where the cluster is, with its variables")
    within.add_argument("--user", help="as this user, when we are root")
    within.add_argument("argv", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    try:
        return _obey(cluster, given)
    except Trouble as trouble:
        say(f"{cluster.title}: {trouble}.")
        return 1


def _obey(cluster: Cluster, given: argparse.Namespace) -> int:
    if given.verb in ("install", "start", "stop"):
        began = time.monotonic()
        getattr(cluster, given.verb)()
        done = {"install": "installed", "start": "up", "stop": "stopped"}[given.verb]
        say(f"{cluster.title}: {done} ({time.monotonic() - began:.1f} s).")
    elif given.verb == "status":
        for name in cluster.daemons:
            print(f"{name} {cluster.pid(name) or 'does not run'}")
        return 0 if cluster.running() else 1
    elif given.verb == "env":
        for name, value in cluster.environment().items():
            print(f"export {name}={shlex.quote(value)}")
    elif given.verb == "pid":
        print(cluster.pid(given.daemon) or "")
        return 0 if cluster.pid(given.daemon) else 1
    elif given.verb == "kill":
        cluster.kill(given.daemon, signal.Signals[f"SIG{given.signal}"])
    elif given.verb == "up":
        cluster.up(given.daemon)
    else:
        os.environ.update(cluster.environment())
        argv = cluster.command(*given.argv, user=given.user)
        os.execvp(argv[0], argv)
    return 0
