"""What the stories in a browser share."""

from __future__ import annotations


def do(page, command):
    """Give JupyterLab a command, and do not wait for its end."""
    page.evaluate("command => { jupyterapp.commands.execute(command) }", command)
