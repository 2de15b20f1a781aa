"""Nothing is sent anywhere: OpenVINO and NNCF bring a package that tells of every import, unless it is kept out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.settings import shipped_bundle

_LOAD = f"""
import socket, sys
from pathlib import Path

asked = []
def ask(host, *rest, **named):
    asked.append(host)
    raise socket.gaierror("no network in this test")
socket.getaddrinfo = ask

import {{module}}
from worker.inference.bundle import load_bundle
from worker.inference.engines import load_engine
load_engine("openvino", load_bundle(Path({str(shipped_bundle())!r})))
assert "openvino" in sys.modules
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
assert not asked, asked
"""


@pytest.mark.parametrize(
    "module",
    [
        "worker.inference.engines",
        "trainer.networks.openvino_conversion",
        pytest.param("trainer.networks.quantisation", marks=pytest.mark.slow),
        pytest.param("trainer.evaluation.engine_parity", marks=pytest.mark.slow),
    ],
)
def test_no_module_brings_openvinos_telemetry(module: str, tmp_path: Path) -> None:
    # Out of CI's variables, in which it keeps quiet by itself.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", _LOAD.format(module=module)],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists(), "the id under which it tells"
