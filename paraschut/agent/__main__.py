"""The agent as a program: ``python -m paraschut.agent INDEX LIMITS``; detaches itself."""

from __future__ import annotations

import json
import os
import sys

from paraschut.agent.agent import Agent
from paraschut.agent.limits import capacity_of


def main() -> None:
    """Start an agent that nobody has to wait for, or for whose end nobody has to look."""
    index, limits = sys.argv[1], json.loads(sys.argv[2])
    if not os.path.exists(index):
        sys.exit(f"there is no index at {index}")
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    Agent(index, capacity_of(*limits[:3]), limits).serve()


if __name__ == "__main__":
    main()
