"""A real JupyterLab in a real Chromium; ``make browser`` installs both."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import nbformat
import pytest
from browsing import KERNEL_IDLE, change_theme, do
from stories import ROOT

REQUIRED = "browser" in os.environ.get("PARASCHUT_TESTS_REQUIRE", "").split(",")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Seconds for anything that a browser is waited for; the machines that run this may be slow.
PATIENCE = 60


# Not for the whole session: while Playwright runs, so does its event loop, and no other may in this thread.
@pytest.fixture(scope="module")
def chromium():
    """Return a browser, if there is one."""
    lacking = [name for name in ("playwright", "jupyterlab") if find_spec(name) is None]
    lacking += [] if CHROMIUM else ["chromium"]
    if lacking:
        sentence = f"{' and '.join(lacking)} are not installed here; 'make browser' installs them"
        if REQUIRED:
            pytest.fail(f"{sentence}, and PARASCHUT_TESTS_REQUIRE=browser wants them.")
        pytest.skip(sentence)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Lab:
    """JupyterLab in a folder, and pages that show its notebooks."""

    def __init__(self, folder, port, browser):
        self.folder, self.port, self.browser = folder, port, browser
        self.pages = []

    def close(self):
        for page in self.pages:
            page.close()

    def write(self, name, *cells, outputs=()):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        for cell, data in zip(notebook.cells, outputs, strict=False):
            cell.outputs = [nbformat.v4.new_output("display_data", data)]
        nbformat.write(notebook, self.folder / name)

    def open(self, name, *, dark=False, run=True):
        scheme = "dark" if dark else "light"
        page = self.browser.new_page(viewport={"width": 1000, "height": 1100}, color_scheme=scheme)
        self.pages.append(page)
        page.set_default_timeout(PATIENCE * 1000)
        page.said = []
        page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
        page.goto(
            f"http://127.0.0.1:{self.port}/lab/workspaces/{self.folder.name}/tree/{self.folder.name}/{name}?token=of-the-tests"
        )
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        change_theme(page, scheme)
        # The side bar would leave little room.
        page.evaluate("() => { jupyterapp.shell.collapseLeft() }")
        if run:
            # What is run earlier makes JupyterLab ask which kernel is meant.
            page.wait_for_function(KERNEL_IDLE)
            do(page, "notebook:run-all-cells")
        return page


@pytest.fixture(scope="module")
def server(chromium, tmp_path_factory):
    """Return the folder and the port of a JupyterLab that nobody else uses."""
    home = tmp_path_factory.mktemp("lab")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "ServerApp": {
            "port": port,
            "token": "of-the-tests",
            "open_browser": False,
            "allow_root": True,
            "root_dir": str(home),
        },
        "LabApp": {"expose_app_in_browser": True},
    }
    (home / "jupyter_server_config.json").write_text(json.dumps(settings))
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PARASCHUT_")},
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "share"),
        "JUPYTER_CONFIG_DIR": str(home),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    with open(home / "lab.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab"], cwd=home, env=environment, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(port):
            assert process.poll() is None, (home / "lab.log").read_text()
            assert time.monotonic() < deadline, (home / "lab.log").read_text()
            time.sleep(0.1)
        yield home, port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # a kernel that was just starting
            process.kill()
            process.wait()


@pytest.fixture
def lab(server, chromium, tmp_path):
    """Return JupyterLab, with a folder of one's own."""
    home, port = server
    folder = home / tmp_path.name
    folder.mkdir(mode=0o700)
    (folder / "config.toml").write_text('[paraschut]\njob_dir = "jobs"\n', "utf-8")
    made = Lab(folder, port, chromium)
    yield made
    made.close()


def _answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=of-the-tests", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
