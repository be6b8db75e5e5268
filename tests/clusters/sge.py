#!/usr/bin/env python3
"""A real Grid Engine for the tests, in a network namespace of its own, without systemd.

Its daemons listen on every address they find, so they get a network in which there is only this machine. Commands
go in through wrappers (``env`` puts them first on PATH), which only root can do; an ordinary user's whole process
is started inside: ``sge.py run --user psu COMMAND``.

Settings, as variables: ``PARASCHUT_SGE_DIR`` (a short path; another folder is another cluster).
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import machine
from machine import BARE, Cluster, Trouble, installed, run, until

SLOTS, GPUS = 16, 2
PACKAGES = ("gridengine-master", "gridengine-exec", "gridengine-client")
PROGRAMS, SHARED = Path("/usr/lib/gridengine"), Path("/usr/share/gridengine")
COMMANDS = ("qsub", "qstat", "qdel", "qacct", "qconf", "qhost", "qmod", "qhold", "qrls", "qalter", "qselect")
ADMIN = "sgeadmin"


class GridEngine(Cluster):
    """Install, start and stop a real Grid Engine on this machine."""

    title = "Grid Engine"
    daemons = ("sge_qmaster", "sge_execd")

    def __init__(self, folder: str = "") -> None:
        super().__init__(folder or os.environ.get("PARASCHUT_SGE_DIR", "/tmp/paraschut-sge"))
        self.network = self.folder / "net"

    def install(self) -> None:
        """Install Debian's packages, which then make no cell of their own."""
        if shutil.which("debconf-set-selections"):
            answers = "".join(
                f"{name} shared/gridengineconfig boolean false\n" for name in ("gridengine-common", *PACKAGES)
            )
            run("debconf-set-selections", input=answers)
        # Its mail program wants a mail server; dma is a small one without a daemon.
        server = () if Path("/usr/sbin/sendmail").exists() else ("dma",)
        machine.install(*server, "iproute2", *PACKAGES)

    def missing(self) -> str:
        """Return why there can be no Grid Engine here."""
        if not Path("/usr/bin/dpkg-query").exists():
            return "its packages are Debian's, and this machine has no dpkg"
        absent = [package for package in PACKAGES if not installed(package)]
        if absent:
            return f"not installed: {', '.join(absent)} (as root: make clusters)"
        if not os.getuid() and run("unshare", "--net", "true", ok=False).returncode:
            return "this machine does not let root make a network namespace, without which it would listen to all"
        return ""

    def environment(self) -> dict[str, str]:
        """Return what its commands read, and a PATH on which their wrappers come first."""
        path = os.environ.get("PATH", BARE["PATH"]).split(":")
        wrappers = str(self.folder / "bin")
        return {
            **self._cell(),
            "PATH": ":".join([wrappers, *(folder for folder in path if folder != wrappers)]),
        }

    def _cell(self) -> dict[str, str]:
        return {
            "SGE_ROOT": str(self.folder / "root"),
            "SGE_CELL": "default",
            "SGE_CLUSTER_NAME": "psu",
            "SGE_ARCH": "lx-amd64",
        }

    # --- the network ------------------------------------------------------------------------------------------

    def into(self) -> list[str]:
        """Return what enters the network; who is in it stays."""
        try:
            inside = os.path.samefile("/proc/self/ns/net", self.network)
        except OSError:
            inside = False
        return [] if inside else ["nsenter", f"--net={self.network}"]

    def _make_network(self) -> None:
        self.network.touch()
        run("unshare", f"--net={self.network}", "ip", "link", "set", "lo", "up")
        # The name of this host must lead to an address that is there.
        for address in {
            str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        }:
            if not address.startswith("127."):
                run(*self.into(), "ip", "address", "add", f"{address}/32", "dev", "lo")

    def _write_wrappers(self) -> None:
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        for command in COMMANDS:
            wrapper = folder / command
            wrapper.write_text(f"""\
#!/bin/sh
if [ /proc/self/ns/net -ef {self.network} ]; then exec {PROGRAMS / command} "$@"; fi
exec nsenter --net={self.network} {PROGRAMS / command} "$@"
""")
            wrapper.chmod(0o755)

    # --- the cell ---------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Make network, wrappers and cell; what only a running master can be told comes in ``up``."""
        for name in (
            "root/default/common",
            "spool/qmaster/job_scripts",
            "spool/db",
            "spool/execd",
            "log",
            "bin",
        ):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(self.network):
            self._make_network()
        self._write_wrappers()
        for name in ("bin", "lib", "util", "utilbin"):
            link = self.folder / "root" / name
            if not link.is_symlink():
                link.symlink_to(Path("/var/lib/gridengine") / name)
        # Ids that are not also counts and indices.
        numbers = self.folder / "spool/qmaster/jobseqnum"
        if not numbers.exists():
            numbers.write_text("70000\n")
        common, host = self.folder / "root/default/common", socket.gethostname()
        (common / "act_qmaster").write_text(f"{host}\n")
        (common / "cluster_name").write_text("psu\n")
        # 127.0.0.1 reads back as localhost.
        (common / "host_aliases").write_text(f"{host} localhost\n")
        (common / "bootstrap").write_text(f"""\
admin_user {ADMIN}
default_domain none
ignore_fqdn true
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {self.folder}/spool/db
binary_path /usr/sbin
qmaster_spool_dir {self.folder}/spool/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
""")
        settings = {
            "execd_spool_dir": f"{self.folder}/spool/execd",
            "mailer": "/bin/true",
            "xterm": "/bin/true",
            "administrator_mail": "none",
            "min_uid": "0",
            "min_gid": "0",
            "load_report_time": "00:00:05",
            "execd_params": "ENABLE_ADDGRP_KILL=true",
            "reporting_params": "accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 "
            "joblog=false sharelog=00:00:00",
        }
        configuration = self._change(
            (SHARED / "default-configuration").read_text(), settings, "configuration"
        )
        self._spool(configuration)

    def _change(self, text: str, settings: dict[str, str], name: str) -> str:
        """Write a file of settings with some of them changed; return its path."""
        lines = [
            f"{words[0]} {settings[words[0]]}" if words and words[0] in settings else line
            for line in text.replace("\\\n", " ").splitlines()
            for words in [line.split()]
        ]
        return self._save(name, "\n".join(lines) + "\n")

    def _save(self, name: str, text: str) -> str:
        file = self.folder / "log" / name
        file.write_text(text)
        return str(file)

    def _spool(self, configuration: str) -> None:
        admin = pwd.getpwnam(ADMIN)
        for top in ("root/default", "spool"):
            for folder, _, files in os.walk(self.folder / top):
                for path in (folder, *(os.path.join(folder, file) for file in files)):
                    os.chown(path, admin.pw_uid, admin.pw_gid)
        resources = SHARED / "util/resources"
        for argv in (
            ["spoolinit", "berkeleydb", "libspoolb", f"{self.folder}/spool/db", "init"],
            ["spooldefaults", "configuration", configuration],
            ["spooldefaults", "complexes", f"{resources}/centry"],
            ["spooldefaults", "usersets", f"{resources}/usersets"],
            ["spooldefaults", "managers", ADMIN, "root"],
            ["spooldefaults", "operators", ADMIN, "root"],
        ):
            program = str(PROGRAMS / argv[0])
            run("runuser", "--user", ADMIN, "--", program, *argv[1:], env={**BARE, **self._cell()}, cwd="/")

    def _tell_master(self) -> None:
        """Say once to the running master which hosts, resources and queues there are."""
        done = self.folder / "log/told"
        if done.exists():
            return
        host = socket.gethostname()

        def tell(option: str, *words: str) -> str:
            return self.client(str(PROGRAMS / "qconf"), option, *words).stdout

        tell("-as", host)
        tell("-ah", host)
        schedule = {
            "schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1",
            "schedd_job_info": "true", "load_formula": "slots",
        }  # fmt: skip
        tell("-Msconf", self._change(tell("-ssconf"), schedule, "schedule"))
        tell("-Mc", self._save("complexes", tell("-sc") + "gpu gpu INT <= YES YES 0 0\n"))
        about = {
            "hostname": host, "load_scaling": "NONE", "complex_values": f"slots={SLOTS},gpu={GPUS}",
            "user_lists": "NONE", "xuser_lists": "NONE", "projects": "NONE", "xprojects": "NONE",
            "usage_scaling": "NONE", "report_variables": "NONE",
        }  # fmt: skip
        tell("-Ae", self._save("host", _lines(about)))
        tell("-Ahgrp", self._save("hosts", _lines({"group_name": "@allhosts", "hostlist": host})))
        for name, rule in (("smp", "$pe_slots"), ("make", "$round_robin")):
            tell("-Ap", self._save(name, _lines({
                "pe_name": name, "slots": "999", "user_lists": "NONE", "xuser_lists": "NONE",
                "start_proc_args": "NONE", "stop_proc_args": "NONE", "allocation_rule": rule,
                "control_slaves": "FALSE", "job_is_first_task": "TRUE", "urgency_slots": "min",
                "accounting_summary": "FALSE", "qsort_args": "NONE",
            })))  # fmt: skip
        for name, limit in (("all.q", "INFINITY"), ("short.q", "00:05:00")):
            # A busy machine starts nothing unless load_thresholds is NONE.
            queue = {
                "qname": name, "hostlist": "@allhosts", "slots": str(SLOTS), "pe_list": "smp make", "h_rt": limit,
                "load_thresholds": "NONE", "rerun": "FALSE", "notify": "00:00:03", "min_cpu_interval": "00:00:05",
            }  # fmt: skip
            tell("-Aq", self._change(tell("-sq"), queue, name))
        if tell("-sql").split() != ["all.q", "short.q"]:
            raise Trouble(f"sge_qmaster did not take its settings; look into {self.folder}/log")
        done.touch()

    # --- daemons ----------------------------------------------------------------------------------------------

    def pid_file(self, name: str) -> Path | None:
        """Return where the daemon writes its pid; the folder of execd has the name of the host, or localhost."""
        if name == "sge_qmaster":
            return self.folder / "spool/qmaster/qmaster.pid"
        return next((self.folder / "spool/execd").glob("*/execd.pid"), None)

    def launch(self, name: str) -> None:
        """Start one daemon, in the network of its own."""
        with (self.folder / "log" / f"{name}.out").open("a") as out:
            subprocess.run(
                [*self.into(), "prlimit", "--nofile=4096", str(PROGRAMS / name)], env={**BARE, **self._cell()},
                cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
            )  # fmt: skip

    def answers(self, name: str) -> bool:
        """Return whether the daemon does its work."""
        if not self.pid(name):
            return False
        if name == "sge_qmaster":
            return self.client(str(PROGRAMS / "qconf"), "-sh").returncode == 0
        # A sixth column is a trouble of the queue.
        queues = [
            line.split()
            for line in self.client(str(PROGRAMS / "qstat"), "-f").stdout.splitlines()
            if "@" in line
        ]
        return len(queues) > 1 and all(len(columns) == 5 for columns in queues)

    def up(self, name: str) -> None:
        """Start one daemon, unless it runs, and wait for it."""
        super().up(name)
        if name == "sge_qmaster":
            self._tell_master()

    def finish_jobs(self) -> None:
        """Delete everything, and let execd end what it runs."""
        if self.pid("sge_qmaster"):
            self.client(str(PROGRAMS / "qdel"), "-f", "-u", "*")
            self.client(str(PROGRAMS / "qconf"), "-kej", socket.gethostname())
            until(lambda: not self.pid("sge_execd"), 10)

    def clear(self) -> None:
        """Let the network go."""
        if os.path.ismount(self.network):
            run("umount", str(self.network), ok=False)


def _lines(settings: dict[str, str]) -> str:
    return "".join(f"{name} {value}\n" for name, value in settings.items())


if __name__ == "__main__":
    sys.exit(machine.main(GridEngine()))
