"""What the stories in a browser share."""

from __future__ import annotations

#: In JupyterLab: the notebook's kernel waits for work.
KERNEL_IDLE = (
    "jupyterapp.shell.currentWidget.sessionContext.isReady && "
    "jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"
)


def do(page, command):
    """Give JupyterLab a command, and do not wait for its end."""
    page.evaluate("command => { jupyterapp.commands.execute(command) }", command)


def change_theme(page, theme):
    """Let JupyterLab be ``light`` or ``dark``."""
    name = f"JupyterLab {theme.title()}"
    page.evaluate("theme => { jupyterapp.commands.execute('apputils:change-theme', {theme}) }", name)
    page.wait_for_selector(
        f"[data-jp-theme-light={'true' if theme == 'light' else 'false'}]", state="attached"
    )
