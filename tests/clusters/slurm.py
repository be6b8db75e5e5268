#!/usr/bin/env python3
"""A real Slurm for the tests: three nodes on this machine, on 127.0.0.1 only, without systemd.

Settings, as variables: ``PARASCHUT_SLURM_DIR`` (a short path; another folder is another cluster, which needs
another ``PARASCHUT_SLURM_PORT``, the first of ten), ``PARASCHUT_SLURM_ACCOUNTING=1`` (slurmdbd on mariadb),
``PARASCHUT_SLURM_EXTRA`` (lines for slurm.conf, such as ``MinJobAge=2``).
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import machine
from machine import BARE, Cluster, installed, run, until

NODES, CPUS, MEMORY, GPUS = 3, 16, 32000, 2
CGROUPS = Path("/sys/fs/cgroup")
PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
BOOKS = ("slurmdbd", "mariadb-server")


class Slurm(Cluster):
    """Install, start and stop a real Slurm on this machine."""

    title = "Slurm"

    def __init__(
        self, folder: str = "", port: int = 0, accounting: bool | None = None, extra: str = ""
    ) -> None:
        super().__init__(folder or os.environ.get("PARASCHUT_SLURM_DIR", "/tmp/paraschut-slurm"))
        self.port = port or int(os.environ.get("PARASCHUT_SLURM_PORT", "16710"))
        #: A node is called after its port, so that the nodes of two clusters do not share a name (and a cgroup).
        self.nodes = [f"n{self.port + 2 + i}" for i in range(NODES)]
        self.extra = extra or os.environ.get("PARASCHUT_SLURM_EXTRA", "")
        if accounting is None:
            accounting = (
                bool(os.environ.get("PARASCHUT_SLURM_ACCOUNTING")) or (self.etc / "slurmdbd.conf").exists()
            )
        self.accounting = accounting
        books = ("mariadbd", "slurmdbd") if accounting else ()
        self.daemons = ("munged", *books, "slurmctld", *(f"slurmd-{i + 1}" for i in range(NODES)))

    @property
    def etc(self) -> Path:
        """Where the configuration is."""
        return self.folder / "etc"

    def install(self) -> None:
        """Install Debian's packages; those of the accounting only when it is asked for."""
        machine.install(*PACKAGES, *(BOOKS if self.accounting else ()))

    def missing(self) -> str:
        """Return why there can be no Slurm here."""
        wanted = (*PACKAGES, *(BOOKS if self.accounting else ()))
        if not Path("/usr/bin/dpkg-query").exists():
            return "its packages are Debian's, and this machine has no dpkg"
        absent = [package for package in wanted if not installed(package)]
        return f"not installed: {', '.join(absent)} (as root: make clusters)" if absent else ""

    def environment(self) -> dict[str, str]:
        """Return where the configuration is; that is all a client needs."""
        return {"SLURM_CONF": str(self.etc / "slurm.conf")}

    def limits_memory(self) -> bool:
        """Return whether the running cluster kills what takes more memory than it asked for."""
        return "ConstrainRAMSpace=yes" in (self.etc / "cgroup.conf").read_text()

    # --- configuration ----------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write the configuration."""
        for name in ("etc", "run", "log", "dev", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "state").mkdir(mode=0o700, exist_ok=True)
        (self.etc / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")
        key = self.etc / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(1024))
        (self.etc / "cgroup.conf").write_text(_cgroup_lines())
        (self.etc / "gres.conf").write_text("".join(self._gpu_lines()))
        books = self.etc / "slurmdbd.conf"
        if self.accounting:
            books.touch(mode=0o600)
            books.write_text(self._slurmdbd_lines())
        (self.etc / "slurm.conf").write_text(self._slurm_lines())

    def _gpu_lines(self) -> list[str]:
        # A GPU of ours is /dev/null under another name: Slurm only wants a device.
        lines = []
        for node in self.nodes:
            for i in range(GPUS):
                device = self.folder / "dev" / f"{node}-gpu{i}"
                if not device.exists():
                    os.mknod(device, 0o20666, os.makedev(1, 3))
                lines.append(f"NodeName={node} Name=gpu File={device}\n")
        return lines

    def _slurmdbd_lines(self) -> str:
        return f"""\
AuthType=auth/munge
AuthInfo=socket={self.folder}/run/munge.socket
DbdHost={socket.gethostname()}
DbdAddr=127.0.0.1
DbdPort={self.port + 1}
CommunicationParameters=NoInAddrAny
SlurmUser=root
LogFile={self.folder}/log/slurmdbd.log
PidFile={self.folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_books
CommitDelay=1
"""

    def _slurm_lines(self) -> str:
        host, folder = socket.gethostname(), self.folder
        track, task = ("cgroup", "cgroup") if _has_memory_cgroup() else ("linuxproc", "none")
        books = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            books = f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self.port + 1}
AccountingStoragePass={folder}/run/munge.socket
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu"""
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={node[1:]} "
            f"CPUs={CPUS} RealMemory={MEMORY} Gres=gpu:{GPUS} State=UNKNOWN"
            for node in self.nodes
        )
        # NoInAddrAny: daemons listen only where the name of the host leads, see _listens_here_only.
        # config_overrides: a node has the processors that are written here, not those of this machine.
        # DefMemPerCPU: without it each job takes the whole memory of a node.
        # MinJobAge: how long ended jobs are remembered.  KillWait: how long a job has after SIGTERM.
        return f"""\
ClusterName=psu
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={self.port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/{track}
TaskPlugin=task/{task}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
ReturnToService=2
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,default_queue_depth=1000
PriorityType=priority/basic
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
KillWait=3
SlurmctldTimeout=30
SlurmdTimeout=30
MessageTimeout=10
MinJobAge=300
MaxArraySize=10001
MaxJobCount=200000
FirstJobId=70000
JobCompType=jobcomp/none
{books}
GresTypes=gpu
{nodes}
PartitionName=main Nodes={",".join(self.nodes)} Default=YES MaxTime=7-00:00:00 DefaultTime=1:00:00 State=UP
PartitionName=short Nodes={self.nodes[0]} MaxTime=0:05:00 DefaultTime=0:01:00 State=UP
{self.extra}
"""

    # --- daemons ----------------------------------------------------------------------------------------------

    def pid_file(self, name: str) -> Path:
        """Return where the daemon writes its pid."""
        node = self.node(name)
        return self.folder / "run" / (f"slurmd-{node}.pid" if node else f"{name}.pid")

    def node(self, name: str) -> str:
        """Return the node of a slurmd: that of ``slurmd-1`` is the first one."""
        kind, _, number = name.partition("-")
        return self.nodes[int(number) - 1] if kind == "slurmd" else ""

    def launch(self, name: str) -> None:
        """Start one daemon."""
        folder, conf = str(self.folder), str(self.etc / "slurm.conf")
        kind, node = name.partition("-")[0], self.node(name)
        argv = {
            "munged": [
                "munged", "--force", f"--key-file={folder}/etc/munge.key", f"--socket={folder}/run/munge.socket",
                f"--pid-file={folder}/run/munged.pid", f"--log-file={folder}/log/munged.log",
                f"--seed-file={folder}/state/munge.seed",
            ],
            "slurmdbd": ["slurmdbd"],
            "slurmctld": ["slurmctld", "-f", conf],
            "slurmd": ["slurmd", "-f", conf, "-N", node],
        }  # fmt: skip
        if kind == "mariadbd":
            self._launch_database()
        else:
            self._detach(name, [*self._listens_here_only(), *argv[kind]])

    def _listens_here_only(self) -> list[str]:
        """Return what gives a daemon an /etc/hosts in which this host is 127.0.0.1, where it is not."""
        if socket.gethostbyname(socket.gethostname()) == "127.0.0.1":
            return []
        bind = f'mount --bind "{self.etc}/hosts" /etc/hosts && exec "$@"'
        return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", bind, "sh"]

    def _launch_database(self) -> None:
        data = self.folder / "mysql"
        if not (data / "mysql").is_dir():
            run(
                "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
                "--auth-root-authentication-method=socket",
            )  # fmt: skip
        self._detach("mariadbd", [
            "setsid", "--fork", "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-networking",
            f"--socket={self.folder}/run/mysql.socket", f"--pid-file={self.folder}/run/mariadbd.pid",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900",
        ])  # fmt: skip

    def _detach(self, name: str, argv: list[str]) -> None:
        variables = {**BARE, **self.environment(), "MYSQL_UNIX_PORT": f"{self.folder}/run/mysql.socket"}
        with (self.folder / "log" / f"{name}.out").open("a") as out:
            subprocess.run(
                argv, env=variables, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
            )

    def answers(self, name: str) -> bool:
        """Return whether the daemon does its work."""
        kind, node = name.partition("-")[0], self.node(name)
        if not self.pid(name):
            return False
        if kind == "munged":
            return (
                run("munge", f"--socket={self.folder}/run/munge.socket", "--no-input", ok=False).returncode
                == 0
            )
        if kind == "mariadbd":
            socket_ = f"--socket={self.folder}/run/mysql.socket"
            return run("mariadb-admin", "--no-defaults", socket_, "ping", ok=False).returncode == 0
        if kind == "slurmdbd":
            return self.client("sacctmgr", "-n", "-i", "list", "cluster").returncode == 0
        if kind == "slurmctld":
            return " is UP" in self.client("scontrol", "ping").stdout
        state = self.client("sinfo", "--noheader", f"--nodes={node}", "--format=%T").stdout.split()
        return bool(state) and set(state) <= {"idle", "mixed", "allocated"}

    def up(self, name: str) -> None:
        """Start one daemon, unless it runs, and wait for it; a node that was set down may work again."""
        if self.pid(name) and self.node(name) and not self.answers(name):
            self.client("scontrol", "update", f"nodename={self.node(name)}", "state=resume")
        super().up(name)
        if name == "mariadbd":
            # Others may see that it runs.
            self.pid_file(name).chmod(0o644)

    def finish_jobs(self) -> None:
        """Cancel everything: what runs a job outlives its slurmd."""
        if self.pid("slurmctld"):
            for state in ("PENDING", "RUNNING", "SUSPENDED"):
                self.client("scancel", f"--state={state}")
            until(lambda: not self.client("squeue", "--noheader").stdout, 10)

    def clear(self) -> None:
        """Remove the cgroups that are empty now."""
        for node in self.nodes:
            for top in CGROUPS.glob(f"*/slurm_{node}"):
                for folder, _, _ in os.walk(top, topdown=False):
                    try:
                        os.rmdir(folder)
                    except OSError:
                        continue


def _has_memory_cgroup() -> bool:
    """Return whether memory can be limited: that is tried with cgroup v1, where Slurm needs no systemd."""
    probe = CGROUPS / "memory" / f"psu-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return (CGROUPS / "freezer").is_dir()


def _cgroup_lines() -> str:
    if not _has_memory_cgroup():
        return "CgroupPlugin=disabled\n"
    return """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
MinRAMSpace=4
"""


if __name__ == "__main__":
    sys.exit(machine.main(Slurm()))
