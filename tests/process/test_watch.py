"""Watching in a terminal of its own, and into a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios

import pytest
from helpers import until
from stories import BATCH

from paraschut import change

pytestmark = pytest.mark.process


class Terminal:
    """A command in a terminal: what it writes, its keys, its size."""

    def __init__(self, *words, columns=90, lines=20):
        self.mine, self.its = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.its)
        self.written = ""
        environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "paraschut", *words],
            stdin=self.its,
            stdout=self.its,
            stderr=self.its,
            env={**environment, "TERM": "xterm"},
        )

    def resize(self, columns, lines):
        fcntl.ioctl(self.mine, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self):
        while select.select([self.mine], [], [], 0)[0]:
            self.written += os.read(self.mine, 1 << 16).decode("utf-8", "replace")
        return self.written

    @property
    def screen(self):
        """What was drawn last, without colours."""
        last = self.read().rpartition("\x1b[H")[2]
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last)

    def press(self, keys):
        os.write(self.mine, keys.encode())

    def wait(self):
        """Return the exit status."""
        until(
            lambda: self.read() is None or self.process.poll() is not None, what=lambda: self.written[-2000:]
        )
        self.read()
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.mine)
        os.close(self.its)


@pytest.fixture
def watched(store, make_jobs):
    """Return a function that starts watching three jobs, and waits until they are seen."""
    from paraschut.prepare import add_batch_to_queue

    add_batch_to_queue(BATCH, make_jobs(3, name="yeast/map"))
    started = []

    def begin(*words, **size):
        one = Terminal("watch", "-n", "0.2", *words, **size)
        started.append(one)
        until(lambda: "yeast/map" in one.screen, what=lambda: one.written)
        return one

    yield begin
    for one in started:
        one.close()


def left_as_found(terminal):
    entered, left = terminal.written.find("\x1b[?1049h"), terminal.written.rfind("\x1b[?1049l")
    assert 0 <= entered < left
    assert "\x1b[?25h" in terminal.written[left - 10 :]
    assert termios.tcgetattr(terminal.its) == terminal.before
    return terminal.written[left:]


def test_it_changes_with_the_index_and_ends_when_all_is_done(watched):
    terminal = watched(columns=0, lines=0)  # as one that does not say its size
    assert "0%" in terminal.screen
    assert "on queue" in terminal.screen
    change.set_job_field(BATCH, 0, {"state": "complete"})
    until(lambda: "33%" in terminal.screen)
    change.set_job_field(BATCH, [1, 2], {"state": "complete"})
    assert terminal.wait() == 0
    rest = left_as_found(terminal)
    assert "complete: 3/3" in rest, "what was seen last stays"
    assert "nothing runs or waits any more" in rest


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_a_key_ends_it(watched, key):
    terminal = watched()
    terminal.press(key)
    assert terminal.wait() == 0
    assert "watch: stopped" in left_as_found(terminal)


def test_a_signal_to_stop_ends_it_as_well(watched):
    terminal = watched()
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 0
    left_as_found(terminal)


def test_it_fits_into_its_terminal_also_when_that_changes(watched):
    terminal = watched("--interval", "60", columns=90, lines=5)
    until(lambda: "1 more below" in terminal.screen)
    assert len(terminal.screen.strip().splitlines()) <= 5
    assert "on queue" not in terminal.screen
    terminal.press("j")
    until(lambda: "on queue" in terminal.screen)
    terminal.press("k")
    until(lambda: "on queue" not in terminal.screen)
    terminal.resize(60, 30)
    until(lambda: "on queue" in terminal.screen)
    assert "\x1b[30H" in terminal.written
    assert max(map(len, terminal.screen.splitlines())) <= 60
    terminal.press("q")
    assert terminal.wait() == 0


class Tmux:
    """A terminal of tmux, with a server of its own."""

    def __init__(self, socket, command):
        self.call = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self("new-session", "-d", "-x", "90", "-y", "20", command)

    def __call__(self, *words):
        return subprocess.run(
            [*self.call, *words], capture_output=True, text=True, check=True, timeout=60
        ).stdout

    @property
    def screen(self):
        return self("capture-pane", "-p")


@pytest.mark.parametrize("key", ["q", "C-c"])
def test_in_tmux_it_changes_follows_the_size_and_leaves_what_was_there(store, make_jobs, tmp_path, key):
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed here; 'make browser' installs it")
    from paraschut.prepare import add_batch_to_queue

    add_batch_to_queue(BATCH, make_jobs(3, name="yeast/map"))
    watch = f"{shlex.quote(sys.executable)} -m paraschut watch -n 0.2"
    tmux = Tmux(tmp_path / "tmux", f"echo before; {watch}; echo status $?; exec cat")
    try:
        until(lambda: "yeast/map" in tmux.screen, what=lambda: tmux.screen)
        assert "before" not in tmux.screen
        change.set_job_field(BATCH, 0, {"state": "complete"})
        until(lambda: "33%" in tmux.screen, what=lambda: tmux.screen)
        tmux("resize-window", "-x", "60", "-y", "5")
        until(lambda: "more below" in tmux.screen, what=lambda: tmux.screen)
        tmux("resize-window", "-x", "90", "-y", "20")
        until(lambda: "on queue" in tmux.screen, what=lambda: tmux.screen)
        tmux("send-keys", key)
        until(lambda: "status 0" in tmux.screen, what=lambda: tmux.screen)
        assert "before" in tmux.screen
        assert "watch: stopped" in tmux.screen
    finally:
        tmux("kill-server")


def test_into_a_pipe_it_is_plain_text(index):
    change_after = (
        "import paraschut as psu, time; time.sleep(1); psu.set_batch_field(%d, {'state': 'complete'})"
    )
    other = subprocess.Popen([sys.executable, "-c", change_after % BATCH])
    from stories import jobs_of

    from paraschut.prepare import add_batch_to_queue

    add_batch_to_queue(BATCH, jobs_of(BATCH, 3, name="yeast/map"))
    done = subprocess.run(
        [sys.executable, "-m", "paraschut", "watch", "-n", "0.2"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    other.wait()
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stdout.count("yeast/map") == 2, "printed again only because something has changed"
    assert done.stdout.endswith("watch: nothing runs or waits any more.\n")
