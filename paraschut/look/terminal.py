"""A screen of our own in a terminal, left as it was found; and the keys that are pressed meanwhile."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from types import TracebackType
from typing import Self

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
#: Seconds between two looks at the size of the terminal.
_TICK = 0.2
_KEYS = {
    "\x1b[A": "up",
    "k": "up",
    "\x1b[B": "down",
    "j": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    " ": "page down",
    "q": "quit",
    "Q": "quit",
    "\x03": "quit",
}


class Screen:
    """The terminal, while it is ours: ``with Screen() as screen: screen.draw(lines, "q quits")``."""

    def __init__(self) -> None:
        self.top = 0
        self._lines: list[str] = []
        self._before: list[int | list[bytes | int]] | None = None
        self._input = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None

    def __enter__(self) -> Self:
        if self._input is not None:
            self._before = termios.tcgetattr(self._input)
            # Ctrl-C still raises KeyboardInterrupt.
            tty.setcbreak(self._input)
        self._write(_ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._write(_LEAVE)
        if self._input is not None and self._before is not None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    @property
    def size(self) -> tuple[int, int]:
        """The columns and lines of the terminal."""
        try:
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            columns = lines = 0
        return columns or 80, max(lines or 24, 2)

    def draw(self, text: str, foot: str) -> None:
        """Show a text from the line that was scrolled to, and one line below it."""
        _, height = self.size
        self._lines = text.split("\n")
        self.top = max(0, min(self.top, len(self._lines) - (height - 1)))
        shown = self._lines[self.top : self.top + height - 1]
        below = len(self._lines) - self.top - len(shown)
        more = f" · {below} more below (arrow keys)" if below else ""
        body = "".join(f"{line}{_CLEAR_LINE}\n" for line in shown)
        self._write(
            f"{_HOME}{body}{_CLEAR_REST}\x1b[{height}H\x1b[7m{(foot + more)[: self.size[0] - 1]}\x1b[0m"
        )

    def wait(self, until: float) -> str:
        """Wait for a key, another size of the terminal (``resize``), or a time of the monotonic clock (``time``)."""
        size = self.size
        while (left := until - time.monotonic()) > 0:
            if self._input is None:
                time.sleep(min(left, _TICK))
            elif select.select([self._input], [], [], min(left, _TICK))[0]:
                pressed = os.read(self._input, 16)
                if not pressed:  # the terminal is gone
                    return "quit"
                key = _KEYS.get(pressed.decode("utf-8", "replace"), "")
                if key:
                    return key
            if self.size != size:
                return "resize"
        return "time"

    def scroll(self, key: str) -> None:
        """Move the part that is shown."""
        page = self.size[1] - 2
        self.top += {"up": -1, "down": 1, "page up": -page, "page down": page}.get(key, 0)
        self.top = max(self.top, 0)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
