"""`dermq up` beside other programs on the machine."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import worker.local.system
from worker.errors import SettingsError
from worker.local.system import LocalSystem, StoppedError
from worker.settings import Settings, shipped_bundle


class _AnotherFlower(BaseHTTPRequestHandler):
    """What the Flower of another `dermq up` says: open is /healthcheck alone, and our password is wrong."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthcheck" else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' output."""


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which another Flower has come up."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _AnotherFlower) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_flower_of_another_system_is_not_taken_for_our_own(
    taken_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two systems started at the same moment both find a port free; the one that comes second takes another."""
    free_port, offered = worker.local.system.free_port, [taken_port]
    monkeypatch.setattr(worker.local.system, "free_port", lambda preferred=0: offered.pop() if offered else free_port())
    with LocalSystem(settings=Settings(home=tmp_path / "home", concurrency=1)) as system:
        assert not offered, "the taken port was never tried: this proves nothing"
        assert system.settings.flower_port != taken_port
        (flower,) = (part for part in system.processes if part.name == "flower")
        assert flower.process is not None
        assert flower.process.poll() is None


def test_a_flower_port_that_was_set_and_is_taken_is_reported_before_anything_starts(
    taken_port: int, tmp_path: Path
) -> None:
    system = LocalSystem(settings=Settings(home=tmp_path / "home", flower_port=taken_port))
    with (
        pytest.raises(SettingsError, match=r"DERMQ_FLOWER_PORT\) on 127"),
        system,
    ):
        pass
    assert system.processes == []


def test_flower_alone_on_a_taken_port_says_which_one(taken_port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker.cli", "flower"],
        env={**os.environ, "DERMQ_FLOWER_PASSWORD": "synthetic", "DERMQ_FLOWER_PORT": str(taken_port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"Flower cannot listen on 127.0.0.1:{taken_port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_system_that_waits_for_its_broker_says_so_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.local.system._REPORT_AFTER", 0.1)
    stop, waits = threading.Event(), []
    threading.Timer(0.5, stop.set).start()
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    with (
        pytest.raises(StoppedError, match="has stopped while it waited for its broker"),
        LocalSystem(settings=settings, stop_requested=stop, say_waiting=lambda part, _: waits.append(part)),
    ):
        pytest.fail("it is not up")
    assert waits == ["broker"]
    # Its lock is free again.
    with pytest.raises(StoppedError), LocalSystem(settings=settings, stop_requested=stop):
        pytest.fail("it is not up")


def test_other_terminals_submit_under_the_bundle_that_it_was_started_with(tmp_path: Path) -> None:
    """Else a job would wait for ever: workers refuse one that was submitted under another bundle."""
    home, mine = tmp_path / "home", tmp_path / "mine"
    shutil.copytree(shipped_bundle(), mine)
    in_another_terminal = Settings(home=home)
    assert in_another_terminal.resolved_bundle() == shipped_bundle()
    with LocalSystem(settings=Settings(home=home, bundle=mine, concurrency=1)):
        assert in_another_terminal.resolved_bundle() == mine
        assert Settings(home=home, bundle=tmp_path).resolved_bundle() == tmp_path, "what is said by name counts"
    assert in_another_terminal.resolved_bundle() == shipped_bundle()


@pytest.mark.parametrize("home", ["file", "file/below", "/proc/nowhere"])
def test_a_home_that_cannot_be_is_a_wrong_setting(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = Settings(home=tmp_path / home)
    with (
        pytest.raises(SettingsError, match=r"\(DERMQ_HOME\) cannot be used"),
        LocalSystem(settings=settings),
    ):
        pytest.fail("it is not up")
