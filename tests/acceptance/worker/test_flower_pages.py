"""The JSON, the metrics and the protection of dermq's pages in a real Flower."""

import base64
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import RunningSystem, run_dermq, running_system
from worker.monitor.job_status import STATES
from worker.synthetic.archive import make_archive

PASSWORD = "correct horse battery"
TOKEN = "a token for Prometheus"
#: A name that a page, a terminal and a log must show as text.
HOSTILE = "<img src=x onerror=alert(1)> & 'quotes'"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer of Flower."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def content(self) -> Any:
        return json.loads(self.body)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system with two accounts and three jobs: finished with failures, with a hostile name, and resting."""
    folder = tmp_path_factory.mktemp("flower")
    make_archive(folder / "archive", 24)
    with running_system(folder / "home", DERMQ_METRICS_TOKEN=TOKEN) as running:
        for name, role in (("anna", "operator"), ("ben", "viewer")):
            file = folder / "password"
            file.write_text(f"{PASSWORD}\n")
            with file.open() as given:
                run_users(running, name, role, given.fileno())
        running.dermq("submit", folder / "archive", "--name", HOSTILE, "--watch")
        running.dermq("submit", folder / "archive", "--name", "twice", "--urgent", "--watch")
        running.dermq("submit", folder / "archive", "--name", "night", "--between", hours_of_rest())
        yield running


def run_users(system: RunningSystem, name: str, role: str, given: int) -> None:

    command = [sys.executable, "-P", "-m", "worker.cli", "users", "add", name, "--role", role]
    subprocess.run(command, env=system.environment, stdin=given, check=True, timeout=60)


def hours_of_rest() -> str:
    """A minute of the day that is not now."""
    from datetime import datetime, timedelta

    begin = datetime.now().astimezone() + timedelta(hours=3)
    return f"{begin:%H:%M}-{begin + timedelta(minutes=1):%H:%M}"


def ask(
    system: RunningSystem,
    path: str,
    name: str | None = "anna",
    password: str = PASSWORD,
    *,
    post: Any = None,
    **headers: str,
) -> Answer:
    found = re.search(r"Flower +(\S+) ", system.greeting)
    assert found is not None
    sent = {each.replace("_", "-"): value for each, value in headers.items()}
    if name is not None:
        sent["Authorization"] = f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"
    data = None
    if post is not None:
        sent.setdefault("Content-Type", "application/json")
        data = post if isinstance(post, bytes) else json.dumps(post).encode()
    request = urllib.request.Request(f"{found[1]}{path}", data=data, headers=sent)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return Answer(status=answer.status, headers=dict(answer.headers), body=answer.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(status=error.code, headers=dict(error.headers), body=error.read().decode())


def test_every_answer_is_what_the_description_says(system: RunningSystem) -> None:
    described = ask(system, "/api/dermq/openapi.json").content
    assert described["openapi"] == "3.1.0"

    def check(answer: Answer, path: str, method: str = "get") -> None:
        response = described["paths"][path][method]["responses"][str(answer.status)]
        schema = {**response["content"]["application/json"]["schema"], "components": described["components"]}
        Draft202012Validator(schema).validate(answer.content)

    check(ask(system, "/api/dermq/jobs"), "/api/dermq/jobs")
    check(ask(system, "/api/dermq/jobs?state=open&order=name&page=1&size=1"), "/api/dermq/jobs")
    check(ask(system, "/api/dermq/jobs?state=asleep"), "/api/dermq/jobs")
    check(ask(system, "/api/dermq/jobs/1"), "/api/dermq/jobs/{id}")
    check(ask(system, "/api/dermq/jobs/99"), "/api/dermq/jobs/{id}")
    check(ask(system, "/api/dermq/jobs/1", None), "/api/dermq/jobs/{id}")
    check(ask(system, "/api/dermq/workers"), "/api/dermq/workers")
    check(ask(system, "/api/dermq/health"), "/api/dermq/health")
    pause = {"action": "pause", "jobs": [1, 99]}
    check(ask(system, "/api/dermq/actions", post=pause), "/api/dermq/actions", "post")
    check(ask(system, "/api/dermq/actions", "ben", post=pause), "/api/dermq/actions", "post")
    for path, methods in described["paths"].items():
        for method in methods:
            assert ask(system, path.replace("{id}", "1"), None, post={} if method == "post" else None).status == 401


def test_the_list_can_be_searched_filtered_ordered_and_paged(system: RunningSystem) -> None:
    def ids(query: str) -> list[int]:
        return [job["id"] for job in ask(system, f"/api/dermq/jobs?{query}").content["jobs"]]

    assert ids("") == [3, 2, 1]
    assert ids("order=oldest") == [1, 2, 3]
    assert ids("order=priority") == [2, 3, 1]
    assert ids("state=finished") == [2, 1]
    assert ids("state=open") == ids("state=resting") == [3]
    assert ids("state=waiting") == ids("state=stalled") == ids("state=interrupted") == []
    assert ids("search=TWICE") == [2]
    assert 3 in ids("search=3")
    assert ids("search=%25") == [], "a percent sign is no wildcard"
    page = ask(system, "/api/dermq/jobs?size=2&page=2").content
    assert ([job["id"] for job in page["jobs"]], page["pages"], page["total"]) == ([1], 2, 3)
    assert ids("page=50") == []
    for wrong in ("page=0", "size=0", "size=201", "page=x", "order=up"):
        assert ask(system, f"/api/dermq/jobs?{wrong}").status == 400


def test_a_job_with_its_counts_its_chunks_and_its_audit_log(system: RunningSystem) -> None:
    answer = ask(system, "/api/dermq/jobs/1").content
    job = answer["job"]
    assert job["name"] == HOSTILE
    assert (job["state"], job["completed"]) == ("finished", job["submitted"])
    assert sum(answer["histogram"]) == job["images"]["scored"]
    assert answer["chunks"]["by_status"] == {"done": 3}
    assert [entry["action"] for entry in answer["audit"]][-1] == "submitted"
    assert job["failures"]
    assert "lesion-" not in json.dumps(answer)
    assert str(system.home.parent.parent) not in json.dumps(answer["job"]), "only the end of the source is shown"
    resting = ask(system, "/api/dermq/jobs/3").content["job"]
    assert (resting["state"], resting["needs_attention"], resting["completed"]) == ("resting", False, 0)


def test_the_bundle_engine_and_rate_of_processes(system: RunningSystem) -> None:
    found = ask(system, "/api/dermq/workers").content
    (name,) = found["answering"]
    assert name.startswith("dermq@")
    assert found["processes"]
    for process in found["processes"]:
        assert process["engine"].startswith("openvino ")
        assert process["bundle"].startswith("ham10000-mel-nv")
        assert process["last_image_at"] is not None
        assert process["stalled"] is False


def test_an_operator_acts_and_a_viewer_does_not(system: RunningSystem) -> None:
    cancelled = {"action": "cancel", "jobs": [3]}
    refused = ask(system, "/api/dermq/actions", "ben", post={"action": "pause", "jobs": [3]})
    assert refused.status == 403
    assert "role operator" in refused.content["error"]
    done = ask(system, "/api/dermq/actions", post={"action": "pause", "jobs": [3, 1, 3]}).content["results"]
    assert [(each["job"], each["done"]) for each in done] == [(3, True), (1, False)]
    assert done[1]["text"] == "Job 1 is finished. Only a queued or running job can be paused."
    assert ask(system, "/api/dermq/jobs/3").content["job"]["status"] == "paused"
    (entry, *_) = ask(system, "/api/dermq/jobs/3").content["audit"]
    assert (entry["actor"], entry["action"]) == ("anna (Flower)", "paused")
    assert ask(system, "/api/dermq/actions", post=cancelled).content["results"][0]["done"]
    retried = ask(system, "/api/dermq/actions", post={"action": "retry", "jobs": [2], "codes": ["truncated"]})
    assert retried.content["results"][0]["done"]
    assert retried.content["results"][0]["text"].startswith("Retrying ")
    system.dermq("watch", "2")
    verified = system.dermq("audit", "verify")
    assert "intact" in verified.stdout or verified.returncode == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        ({"action": "delete", "jobs": [1]}, 400),
        ({"action": "pause", "jobs": []}, 400),
        ({"action": "pause", "jobs": ["<b>"]}, 400),
        ({"action": "pause", "jobs": list(range(1, 502))}, 400),
        ({"action": "pause", "jobs": [1], "more": 1}, 400),
        ({"action": "pause", "jobs": [2**63]}, 400),
        ({"action": "pause", "jobs": [True]}, 400),
    ],
)
def test_a_wrong_request_is_refused_with_a_reason(system: RunningSystem, body: Any, status: int) -> None:
    answer = ask(system, "/api/dermq/actions", post=body)
    assert answer.status == status
    assert answer.content["error"]


def test_a_form_of_another_site_changes_nothing(system: RunningSystem) -> None:
    body = {"action": "pause", "jobs": [1]}
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
    ):
        assert ask(system, "/api/dermq/actions", post=body, **headers).status == 403
    form = ask(system, "/api/dermq/actions", post=b"action=pause", Content_Type="application/x-www-form-urlencoded")
    assert form.status == 415


def test_rows_with_file_names_are_for_operators_and_recorded(system: RunningSystem) -> None:
    assert ask(system, "/api/dermq/jobs/1/not-scored.csv", "ben").status == 403
    rows = ask(system, "/api/dermq/jobs/1/not-scored.csv")
    assert rows.headers["Content-Disposition"] == 'attachment; filename="job-1-not-scored.csv"'
    header, *lines = rows.body.splitlines()
    job = ask(system, "/api/dermq/jobs/1").content["job"]
    assert header.startswith("path,status,flag")
    assert len(lines) == job["images"]["failed"] + job["images"]["ungradable"]
    assert ask(system, "/api/dermq/jobs/99/not-scored.csv").status == 404
    (entry, *_) = ask(system, "/api/dermq/jobs/1").content["audit"]
    assert (entry["actor"], entry["action"]) == ("anna (Flower)", "exported")


def test_nothing_is_shown_without_a_password(system: RunningSystem) -> None:
    pages = ["/", "/jobs", "/job/1", "/workers", "/tasks", "/broker", "/metrics", "/api/workers", "/api/dermq/nothing"]
    for page in pages:
        answer = ask(system, page, None)
        assert answer.status == 401, page
        assert HOSTILE not in answer.body
    assert ask(system, "/jobs", "anna", "wrong").status == 401
    assert ask(system, "/api/dermq/nothing").status == 404
    assert ask(system, "/job/99").status == 404
    # Flower's own controls stay closed, whatever the role.
    assert ask(system, "/api/worker/shutdown/dermq", post=b"").status == 403


def test_pages_run_no_script_of_others(system: RunningSystem) -> None:
    page = ask(system, "/job/1")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert HOSTILE not in page.body, "the name comes by JSON, as text"


def test_failed_sign_ins_are_logged_and_must_wait(system: RunningSystem) -> None:
    statuses = [ask(system, "/jobs", "mallory\x1b[2J", "wrong").status for _ in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    answer = ask(system, "/api/dermq/health", "mallory\x1b[2J", "wrong")
    assert int(answer.headers["Retry-After"]) > 200
    log = system.log("flower")
    assert '"event": "sign-in failed"' in log
    assert "\x1b" not in log
    assert PASSWORD not in log
    assert ask(system, "/api/dermq/health").status == 200


def test_a_damaged_file_of_accounts_is_named_in_the_log_and_on_no_page(system: RunningSystem) -> None:
    file = system.home / "flower-users.json"
    whole = file.read_text()
    try:
        file.write_text("{")
        answer = ask(system, "/api/dermq/health")
        assert answer.status == 503
        assert "its log says why" in answer.content["error"].lower()
        assert "is damaged. Delete it" in system.log("flower")
    finally:
        file.write_text(whole)
    assert ask(system, "/api/dermq/health").status == 200


def test_what_somebody_searches_for_is_in_no_log(system: RunningSystem) -> None:
    ask(system, "/api/dermq/jobs?search=JaneDoe1970&page=x")
    ask(system, "/api/dermq/jobs?search=JaneDoe1970", None)
    log = system.log("flower")
    assert "/api/dermq/jobs?" in log
    assert "JaneDoe" not in log


def test_a_certificate_that_is_none_stops_flower(system: RunningSystem, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    names = {"DERMQ_FLOWER_CERTIFICATE": str(tmp_path / "cert.pem"), "DERMQ_FLOWER_KEY": str(tmp_path / "cert.pem")}
    done = run_dermq({**system.environment, **names, "DERMQ_FLOWER_PASSWORD": "x" * 12}, "flower", check=False)
    assert done.returncode == 2
    assert "cannot be used" in done.stderr
    done = run_dermq({**system.environment, "DERMQ_FLOWER_USERS": str(tmp_path / "none.json")}, "flower", check=False)
    assert done.returncode == 2
    assert "dermq users add" in done.stderr


def test_prometheus_reads_the_metrics_with_its_token(system: RunningSystem) -> None:
    assert ask(system, "/metrics", None, Authorization="Bearer wrong").status == 403
    assert ask(system, "/metrics", None).status == 401
    text = ask(system, "/metrics", None, Authorization=f"Bearer {TOKEN}").body
    families = {family.name: family for family in text_string_to_metric_families(text)}
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    jobs = [ask(system, f"/api/dermq/jobs/{number}").content["job"] for number in (1, 2)]
    assert values["dermq_images_total", "scored"] == sum(job["images"]["scored"] for job in jobs)
    assert values["dermq_failed_images_total", "truncated"] >= jobs[0]["failures"]["truncated"]
    assert values["dermq_reused_images_total",] == jobs[1]["reused"]
    assert values["dermq_stage_seconds_total", "infer"] > 0
    assert values["dermq_up", "database"] == values["dermq_up", "broker"] == values["dermq_up", "sweeper"] == 1
    assert values["dermq_jobs", "finished"] == 2
    assert values["dermq_queue_messages", "urgent"] == 0
    assert values["dermq_stalled_jobs", "silent"] == 0
    for family in families.values():
        if family.name.startswith("dermq_"):
            assert family.documentation
            for sample in family.samples:
                assert not {"job", "path", "name", "chunk"} & set(sample.labels)
    assert HOSTILE not in text


def test_the_command_line_shows_the_same(system: RunningSystem) -> None:
    listed = json.loads(system.dermq("jobs", "--search", "twice", "--json").stdout)
    assert (listed["total"], listed["jobs"][0]["id"]) == (1, 2)
    for state in STATES:
        assert system.dermq("jobs", "--state", state, "--json", check=False).returncode in (0, 1)
    assert system.dermq("jobs", "--search", "nothing has this", check=False).returncode == 1
    screen = json.loads(system.dermq("top", "--json").stdout)
    assert screen["messages"] is not None
    assert screen["answering"]
    assert "answering" in system.dermq("top", "--once").stdout
    assert "anna  operator" in system.dermq("users", "list").stdout
    assert HOSTILE in system.dermq("status", "1").stdout
    assert os.access(Path(system.home) / "flower-users.json", os.R_OK)


def test_rules_dashboard_and_page_name_metrics_that_exist(system: RunningSystem) -> None:
    folder = Path(__file__).parents[3] / "docs" / "monitoring"
    text = ask(system, "/metrics", None, Authorization=f"Bearer {TOKEN}").body
    exist = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    exist |= set(re.findall(r"^# TYPE (dermq_\w+) ", text, re.MULTILINE))
    named = {
        file: set(re.findall(r"\bdermq_[a-z_]+", (folder / file).read_text()))
        for file in ("alerts.yml", "grafana-dashboard.json", "README.md")
    }
    for file, names in named.items():
        assert names <= exist, file
    ours = {name for name in exist if name.startswith("dermq_") and not name.endswith("_created")}
    assert ours - {name.removesuffix("_total") for name in ours if name.endswith("_total")} <= named["README.md"]


def test_the_alert_rules_hold() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine (Debian: apt install prometheus)")
    folder = Path(__file__).parents[3] / "docs" / "monitoring"
    for command in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")):
        done = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_flower_speaks_https_under_a_prefix(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine, which makes the certificate")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    tls = {"DERMQ_FLOWER_CERTIFICATE": tmp_path / "cert.pem", "DERMQ_FLOWER_KEY": tmp_path / "key.pem"}
    with running_system(
        tmp_path / "home", DERMQ_FLOWER_URL_PREFIX="flower", **{name: str(file) for name, file in tls.items()}
    ) as system:
        found = re.search(r"Flower +(\S+) +user (\S+) +password (\S+)", system.greeting)
        assert found is not None
        address, user, password = found.groups()
        assert address.startswith("https://")
        assert address.endswith("/flower")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        trusted.check_hostname = False
        for path in (
            "",
            "/",
            "/jobs",
            "/workers",
            "/api/dermq/jobs",
            "/dermq-static/common.js",
            "/static/js/flower.js",
        ):
            request = urllib.request.Request(f"{address}{path}", headers={"Authorization": f"Basic {token}"})
            with urllib.request.urlopen(request, context=trusted, timeout=20) as answer:
                assert answer.status == 200
                text = answer.read().decode()
            if path == "/jobs":
                assert 'data-api="/flower/api/dermq/jobs"' in text
                assert re.findall(r'(?:href|src)="/(?!flower/)[^"]*"', text) == []
