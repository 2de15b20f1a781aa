"""docker-compose.yml as an operator meets it: what it promises on paper, and its commands run on this machine.

There need be no Docker here. The commands, the environment, the configuration of Redis and the health checks are taken
from the file and run natively, with the names of the containers replaced by local addresses.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
import redis
import yaml
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from db.schema import current_revision, newest_revision
from db.session import CONNECTIONS, open_database, read
from worker.cli import main
from worker.errors import BrokerError
from worker.local.broker import free_port, new_local_broker
from worker.queue.app import make_app
from worker.queue.inspect import workers_answering
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
ENV_EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")

DATA, OURS, ONE_SHOT = ("redis", "postgres"), ("migrate", "worker", "sweeper", "flower"), ("migrate",)
#: Long-running services without a health check; docker-compose.yml says why.
UNASKED = ("sweeper",)
PASSWORDS = ("DERMQ_POSTGRES_PASSWORD", "DERMQ_REDIS_PASSWORD", "DERMQ_FLOWER_PASSWORD")
#: What an operator would write into .env.
DOT_ENV = {name: f"{name.lower()}-0123" for name in PASSWORDS} | {"DERMQ_ARCHIVE": "/data", "DERMQ_CONCURRENCY": "1"}
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?P<rest>[^}]*)\})")
#: Seconds in which a service comes up, on a machine that is busy with other things.
_UP_SECONDS = 60.0


def interpolated(value: Any) -> Any:
    """A value as Compose reads it, with `DOT_ENV` for .env."""
    if isinstance(value, list):
        return [interpolated(item) for item in value]
    return _VARIABLE.sub(lambda found: "$" if found["escaped"] else DOT_ENV[found["name"]], str(value))


def environment_of(service: str) -> dict[str, str]:
    """The environment of a container; a variable without a value is passed on when .env has it."""
    declared = SERVICES[service]["environment"]
    return {
        name: DOT_ENV[name] if value is None else interpolated(value)
        for name, value in declared.items()
        if value is not None or name in DOT_ENV
    }


# On paper


def test_the_system_is_complete() -> None:
    assert set(SERVICES) == {*DATA, *OURS}


@pytest.mark.parametrize("variable", [*PASSWORDS, "DERMQ_ARCHIVE"])
def test_what_only_the_operator_knows_has_no_default(variable: str) -> None:
    uses = [found for found in _VARIABLE.finditer(TEXT) if found["name"] == variable]
    assert uses
    for use in uses:
        # `:?` stops on an empty value too, `?` would not.
        assert use["rest"].startswith(f":?set {variable} in .env")
    assert f"\n{variable}=\n" in ENV_EXAMPLE


def test_every_variable_of_compose_is_in_the_example() -> None:
    named = {found["name"] for found in _VARIABLE.finditer(TEXT) if found["name"]}
    passed_on = {name for service in OURS for name, value in SERVICES[service]["environment"].items() if value is None}
    offered = set(re.findall(r"^#?(DERMQ_\w+)=", ENV_EXAMPLE, re.MULTILINE))
    assert offered == named | passed_on


def test_defaults_shown_in_the_example_are_the_real_ones() -> None:
    for name, shown in re.findall(r"^#DERMQ_(\w+)=(.*)$", ENV_EXAMPLE, re.MULTILINE):
        field = Settings.model_fields[name.lower()]
        assert field.default_factory is not None or shown == ("" if field.default is None else str(field.default))


@pytest.mark.parametrize("service", OURS)
def test_environment_names_are_real_settings(service: str) -> None:
    real = {f"DERMQ_{name.upper()}" for name in Settings.model_fields}
    assert set(SERVICES[service]["environment"]) <= real


@pytest.mark.parametrize("service", OURS)
def test_the_command_exists(service: str) -> None:
    (command,) = SERVICES[service]["command"]
    assert command in main.commands
    assert 'ENTRYPOINT ["dermq"]' in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_archive_cannot_be_written() -> None:
    mounts = [mount for service in OURS for mount in SERVICES[service].get("volumes", ())]
    assert [mount["target"] for mount in mounts] == ["/archive"]
    assert mounts[0]["read_only"] is True
    assert mounts[0]["bind"]["create_host_path"] is False


def test_only_flower_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"flower": ["127.0.0.1:5555:5555"]}
    assert environment_of("flower")["DERMQ_FLOWER_PORT"] == "5555"


@pytest.mark.parametrize("service", [name for name in SERVICES if name not in ONE_SHOT])
def test_a_long_running_service_comes_back_and_can_be_asked(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert ("healthcheck" in SERVICES[service]) == (service not in UNASKED)


def test_a_migration_runs_once() -> None:
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("service", ["worker", "sweeper", "flower"])
def test_nothing_runs_before_the_migration(service: str) -> None:
    conditions = {name: how["condition"] for name, how in SERVICES[service]["depends_on"].items()}
    assert conditions == {
        "migrate": "service_completed_successfully",
        "postgres": "service_healthy",
        "redis": "service_healthy",
    }


def test_postgres_has_connections_for_the_largest_worker() -> None:
    (setting,) = [word for word in SERVICES["postgres"]["command"] if word.startswith("max_connections=")]
    (limit,) = [rule.le for rule in Settings.model_fields["concurrency"].metadata if hasattr(rule, "le")]
    # Beside the worker: sweeper, migration, some commands, and those that PostgreSQL keeps for its superuser.
    assert int(setting.partition("=")[2]) >= CONNECTIONS * limit + 20
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"allows {setting.partition('=')[2]} connections, enough" in page


def test_workers_can_be_multiplied_and_leave_in_peace() -> None:
    assert not {"container_name", "ports", "hostname"} & set(SERVICES["worker"])
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= 40


def test_the_image_has_all_that_its_build_copies_and_no_more() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {name for line in copied for name in line.split()}


def test_services_do_not_run_as_root() -> None:
    users = re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert users == ["10001"]
    assert not any("user" in SERVICES[service] for service in OURS)


# On this machine


@dataclass(frozen=True, kw_only=True)
class Local:
    """Redis by its compose command, a migrated database, and what the containers' addresses are here."""

    folder: Path
    broker: subprocess.Popen[bytes]
    broker_port: int
    flower_port: int

    def translated(self, text: str) -> str:
        """A value of the compose file with addresses of this machine."""
        if text.startswith("postgresql://"):
            return f"sqlite:///{self.folder / 'dermq.db'}"
        local = text.replace("redis:6379", f"127.0.0.1:{self.broker_port}").replace("0.0.0.0", "127.0.0.1")
        return re.sub(r"\b5555\b", str(self.flower_port), local)

    def environment(self, service: str) -> dict[str, str]:
        """The environment of a container, for a process here."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("DERMQ_")}
        inside = {name: self.translated(value) for name, value in environment_of(service).items()}
        return {**outside, **inside, "DERMQ_HOME": str(self.folder), "DERMQ_SWEEP_INTERVAL": "0.2"}

    def start(self, service: str) -> subprocess.Popen[bytes]:
        """Run a service's command."""
        with self.log(service).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "worker.cli", *SERVICES[service]["command"]],
                env=self.environment(service),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, service: str) -> Path:
        """File of what a service said."""
        return self.folder / f"{service}.log"

    def is_healthy(self, service: str) -> bool:
        """Run a service's health check."""
        how, program, *arguments = SERVICES[service]["healthcheck"]["test"]
        assert (how, program) == ("CMD", "python")
        command = [sys.executable, *(self.translated(interpolated(argument)) for argument in arguments)]
        environment = self.environment(service)
        return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode == 0


def wait_until(answers: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Whether a process comes to answer before it ends and in time."""
    deadline = time.monotonic() + _UP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if answers():
            return True
        time.sleep(0.1)
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind, children included."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def redis_answers(port: int, password: str | None) -> bool:
    """Whether Redis takes the password."""
    with redis.Redis(port=port, password=password, retry=Retry(NoBackoff(), 0)) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:  # refused, or the wrong password
            return False


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("compose")
    try:
        found = new_local_broker()
    except BrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    # Stands in for the image's redis-server: the same arguments and input, on a port of its own.
    stand_in = folder / "redis-server"
    stand_in.write_text(
        f'#!/bin/sh\nexec {shlex.quote(str(found.binary))} "$@" '
        f"--port {found.port} --bind 127.0.0.1 --dir {shlex.quote(str(folder))}\n"
    )
    stand_in.chmod(0o755)
    with (folder / "redis.log").open("ab") as log:
        broker = subprocess.Popen(
            interpolated(SERVICES["redis"]["command"]),
            env={**os.environ, **environment_of("redis"), "PATH": f"{folder}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    system = Local(folder=folder, broker=broker, broker_port=found.port, flower_port=free_port())
    try:
        password = DOT_ENV["DERMQ_REDIS_PASSWORD"]
        assert wait_until(lambda: redis_answers(found.port, password), broker), (folder / "redis.log").read_text()
        assert system.start("migrate").wait(_UP_SECONDS) == 0, system.log("migrate").read_text()
        yield system
    finally:
        end(broker)


@pytest.fixture
def started(local: Local, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """The process of the service that the test names."""
    process = local.start(request.param)
    yield process
    end(process)


def asked_to_stop(process: subprocess.Popen[bytes], within: float) -> int:
    """Exit status after SIGTERM, as `docker compose stop` sends it."""
    process.terminate()
    return process.wait(within)


def test_redis_wants_the_password_and_does_not_show_it(local: Local) -> None:
    password = DOT_ENV["DERMQ_REDIS_PASSWORD"]
    assert not redis_answers(local.broker_port, None)
    assert not redis_answers(local.broker_port, "another")
    if sys.platform == "linux":
        shown = Path(f"/proc/{local.broker.pid}/cmdline").read_bytes()
        assert b"redis" in shown or b"valkey" in shown
        assert password.encode() not in shown
    with redis.Redis(port=local.broker_port, password=password, decode_responses=True) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("save") == {"save": ""}


def test_migrate_leaves_the_newest_schema(local: Local) -> None:
    database = open_database(local.environment("migrate")["DERMQ_DATABASE_URL"])
    assert read(database, current_revision) == newest_revision()


@pytest.mark.parametrize("started", ["worker"], indirect=True)
def test_the_worker_runs(local: Local, started: subprocess.Popen[bytes]) -> None:
    broker = local.environment("worker")["DERMQ_BROKER_URL"]
    app = make_app(Settings(broker_url=SecretStr(broker), home=local.folder))
    try:
        assert wait_until(lambda: bool(workers_answering(app, 0.5)), started), local.log("worker").read_text()
    finally:
        app.close()
    assert local.is_healthy("worker")
    assert asked_to_stop(started, 20) == 0
    assert not local.is_healthy("worker")


@pytest.mark.parametrize("started", ["sweeper"], indirect=True)
def test_the_sweeper_runs(local: Local, started: subprocess.Popen[bytes]) -> None:
    # Each sweep asks for the length of the queues; nothing else does here.
    with redis.Redis(port=local.broker_port, password=DOT_ENV["DERMQ_REDIS_PASSWORD"]) as client:
        client.config_resetstat()
        sweeps = wait_until(lambda: "cmdstat_llen" in client.info("commandstats"), started)
    assert sweeps, local.log("sweeper").read_text()
    assert asked_to_stop(started, 10) == 0


@pytest.mark.parametrize("started", ["flower"], indirect=True)
def test_flower_runs_behind_its_password(local: Local, started: subprocess.Popen[bytes]) -> None:
    address = f"http://127.0.0.1:{local.flower_port}"

    def answers() -> bool:
        try:
            with urlopen(f"{address}/healthcheck", timeout=2) as reply:
                return bool(reply.status == 200)
        except URLError:
            return False

    assert wait_until(answers, started), local.log("flower").read_text()
    assert local.is_healthy("flower")
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{address}/workers", timeout=10)
    assert refused.value.code == 401
    refused.value.close()
    assert asked_to_stop(started, 10) == 0
    assert not local.is_healthy("flower")


def test_compose_itself_reads_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("Docker Compose is not installed")
    command = [docker, "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    subprocess.run(command, env={**os.environ, **DOT_ENV}, check=True, timeout=60)
