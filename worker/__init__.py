"""The service: intake, queue, scoring, triage flags, output and monitoring."""

import sys
from importlib.metadata import version

__version__ = version("dermq")

# OpenVINO tells a statistics service on the internet of every import, under an id that it keeps in ~/intel, and asks
# nobody; NNCF does alike. Nothing leaves a hospital's network unasked: where this package cannot be imported, both do
# without it. Here, because it must stand before whichever module imports them first.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None: an import of it fails
