"""Accounts of Flower, signing in, and who has to wait."""

import base64
import json
import stat
import threading
from pathlib import Path

import pytest

from worker.errors import SettingsError
from worker.monitor.web import sign_in
from worker.monitor.web.accounts import Account, Role, Users, hash_password, verify_password
from worker.monitor.web.sign_in import Refused, SignIn

PASSWORD = "correct horse battery"


def basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


@pytest.fixture
def users(tmp_path: Path) -> Users:
    found = Users(tmp_path / "home" / "flower-users.json")
    found.add("anna", Role.OPERATOR, PASSWORD)
    found.add("ben", Role.VIEWER, f"{PASSWORD} 2")
    return found


@pytest.fixture
def door(users: Users) -> SignIn:
    return SignIn(users=users, password="of the account dermq")


def test_a_password_is_kept_as_a_hash_that_only_this_account_can_read(users: Users) -> None:
    content = users.file.read_text()
    assert PASSWORD not in content
    assert json.loads(content)["anna"]["password"].startswith("scrypt:16384:8:5:")
    assert stat.S_IMODE(users.file.stat().st_mode) == 0o600
    assert hash_password(PASSWORD) != hash_password(PASSWORD), "each has a salt of its own"
    assert verify_password(PASSWORD, hash_password(PASSWORD))
    assert not verify_password("other", hash_password(PASSWORD))


@pytest.mark.parametrize(
    "broken", ["", "scrypt", "md5:1:1:1:YQ==:YQ==", "scrypt:x:8:5:YQ==:YQ==", "scrypt:0:8:5:YQ==:YQ=="]
)
def test_what_is_no_hash_is_no_password(broken: str) -> None:
    assert not verify_password(PASSWORD, broken)


def test_roles_and_names(users: Users) -> None:
    assert users.accounts() == [Account(name="anna", role=Role.OPERATOR), Account(name="ben", role=Role.VIEWER)]
    assert users.check("anna", PASSWORD) == Account(name="anna", role=Role.OPERATOR)
    assert users.check("anna", f"{PASSWORD} 2") is None
    assert users.check("carl", PASSWORD) is None
    assert users.remove("ben")
    assert not users.remove("ben")
    assert users.find("ben") is None


@pytest.mark.parametrize(
    ("name", "password", "expected"),
    [
        ("", PASSWORD, "cannot be a name"),
        ("a:b", PASSWORD, "cannot be a name"),
        ("a\n", PASSWORD, "cannot be a name"),
        ("carl", "short", "12 characters or more"),
    ],
)
def test_what_cannot_be_an_account_is_refused(users: Users, name: str, password: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        users.add(name, Role.VIEWER, password)
    assert [account.name for account in users.accounts()] == ["anna", "ben"]


def test_a_file_that_others_can_read_or_that_is_damaged_is_refused(users: Users) -> None:
    users.file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        users.accounts()
    users.file.chmod(0o600)
    users.file.write_text('{"anna": {"role": "king"}}')
    with pytest.raises(SettingsError, match="damaged"):
        Users(users.file).accounts()


def test_a_change_of_the_file_counts_at_once(users: Users, door: SignIn) -> None:
    assert door.by_password(basic("anna", PASSWORD), "ward").is_operator
    other = Users(users.file)
    other.add("anna", Role.VIEWER, "another password")
    with pytest.raises(Refused):
        door.by_password(basic("anna", PASSWORD), "ward")
    assert not door.by_password(basic("anna", "another password"), "ward").is_operator


def test_the_built_in_account_is_an_operator_unless_flower_is_read_only(users: Users) -> None:
    asked = basic("dermq", "of the account dermq")
    assert SignIn(users=users, password="of the account dermq").by_password(asked, "a").is_operator
    assert not SignIn(users=users, password="of the account dermq", read_only=True).by_password(asked, "a").is_operator
    with pytest.raises(Refused):
        SignIn(users=users, password="").by_password(basic("dermq", ""), "a")


def test_whoever_uses_oauth_is_a_viewer_unless_the_file_says_more(users: Users, door: SignIn) -> None:
    users.add("carla@example.org", Role.OPERATOR, None)
    assert door.by_email("carla@example.org").is_operator
    assert door.by_email("dora@example.org") == Account(name="dora@example.org", role=Role.VIEWER)
    with pytest.raises(Refused):
        door.by_password(basic("carla@example.org", ""), "ward")


@pytest.mark.parametrize("header", ["", "Basic", "Basic !", "Bearer abc", "Basic YW5uYQ==", "Basic /w==", "basic \x00"])
def test_a_request_without_a_name_and_a_password_is_no_failure(door: SignIn, header: str) -> None:
    for _ in range(50):
        with pytest.raises(Refused) as refused:
            door.by_password(header, "ward")
        assert refused.value.wait is None


def test_whoever_fails_too_often_waits_and_others_do_not(door: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(sign_in.time, "monotonic", lambda: now[0])
    for _ in range(5):
        with pytest.raises(Refused) as refused:
            door.by_password(basic("anna", "wrong"), "10.0.0.9")
        assert refused.value.wait is None
    with pytest.raises(Refused) as refused:
        door.by_password(basic("anna", PASSWORD), "10.0.0.9")
    assert refused.value.wait == 301
    assert door.by_password(basic("anna", PASSWORD), "10.0.0.1").name == "anna", "from her own desk she may"
    assert door.by_password(basic("ben", f"{PASSWORD} 2"), "10.0.0.9").name == "ben"
    now[0] += 301
    assert door.by_password(basic("anna", PASSWORD), "10.0.0.9").name == "anna"


def test_an_address_that_tries_many_names_waits(door: SignIn) -> None:
    for number in range(30):
        with pytest.raises(Refused):
            door.by_password(basic(f"name{number}", "wrong"), "10.0.0.9")
    with pytest.raises(Refused) as refused:
        door.by_password(basic("anna", PASSWORD), "10.0.0.9")
    assert refused.value.wait


def test_whoever_is_at_work_is_not_locked_out_by_others_at_the_same_address(door: SignIn) -> None:
    """Behind a proxy all have one address."""
    assert door.by_password(basic("anna", PASSWORD), "proxy").name == "anna"
    assert door.by_password(basic("dermq", "of the account dermq"), "proxy").name == "dermq"
    for number in range(40):
        with pytest.raises(Refused):
            door.by_password(basic(f"name{number}", "wrong"), "proxy")
    assert door.by_password(basic("anna", PASSWORD), "proxy").name == "anna"
    assert door.by_password(basic("dermq", "of the account dermq"), "proxy").name == "dermq"


def test_a_removed_account_is_not_remembered(users: Users, door: SignIn) -> None:
    assert door.by_password(basic("anna", PASSWORD), "ward").name == "anna"
    users.remove("anna")
    with pytest.raises(Refused):
        door.by_password(basic("anna", PASSWORD), "ward")


def test_accounts_that_are_added_at_once_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    names = [f"name{number}" for number in range(6)]
    threads = [
        threading.Thread(target=lambda name=name: Users(file).add(name, Role.VIEWER, PASSWORD)) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [account.name for account in Users(file).accounts()] == names


def test_a_password_that_is_no_text_is_refused(users: Users) -> None:
    with pytest.raises(SettingsError, match="UTF-8"):
        users.add("carl", Role.VIEWER, "\udcff" * 12)
