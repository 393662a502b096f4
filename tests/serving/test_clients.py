"""The token file, and the command that writes it."""

import json
import stat
import sys
from pathlib import Path

import pytest

from serving.clients import Clients, TokenFileError, hash_token, read_token_file
from serving.errors import PermissionDeniedError, UnauthenticatedError
from serving.tokens import main
from tests.serving.authority import TOKENS, write_tokens


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.json")


def test_a_hash_is_that_of_the_standard() -> None:
    assert hash_token("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_caller_is_known_by_its_token_alone(tokens: Path) -> None:
    clients = Clients(tokens)
    for name, token in TOKENS.items():
        for header in (f"Bearer {token}", f"bearer  {token} "):
            assert clients.identify(header).account.client == name


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "this server wants a token"),
        ("", "the authorization is no token"),
        ("Bearer ", "the authorization is no token"),
        ("Basic camera-secret-1", "the authorization is no token"),
        ("Bearer " + "x" * 257, "the authorization is no token"),
        ("Bearer camera-secret-", "the token is not known here"),
        ("Bearer Camera-secret-1", "the token is not known here"),
        (f"Bearer {hash_token('camera-secret-1')}", "the token is not known here"),
    ],
)
def test_what_is_no_token_of_the_file_is_refused_and_not_repeated(
    tokens: Path, header: str | None, reason: str
) -> None:
    with pytest.raises(UnauthenticatedError, match=f"^{reason}") as refused:
        Clients(tokens).identify(header)
    assert header is None or len(header) < 9 or header.partition(" ")[2] not in str(refused.value)


def test_a_role_that_is_missing_is_named(tokens: Path) -> None:
    camera = Clients(tokens).identify(f"Bearer {TOKENS['camera']}")
    camera.check(frozenset({"stream", "admin"}))
    with pytest.raises(PermissionDeniedError, match=r"^the client camera has not the role for this: admin or monitor$"):
        camera.check(frozenset({"admin", "monitor"}))


def test_a_file_that_is_read_again_keeps_accounts_and_forgets_who_is_gone(tokens: Path) -> None:
    clients = Clients(tokens)
    camera, boss = (clients.identify(f"Bearer {TOKENS[name]}") for name in ("camera", "boss"))
    document = json.loads(tokens.read_text())
    document["clients"] = [entry for entry in document["clients"] if entry["name"] != "boss"]
    document["clients"][0] |= {"frames_per_s": 5, "token_sha256": [hash_token("new"), hash_token(TOKENS["camera"])]}
    tokens.write_text(json.dumps(document))
    clients.reload()
    assert clients.identify("Bearer new").account is camera.account
    assert camera.account.quota.frames_per_s == 5
    assert clients.still_knows(camera, "stream")
    assert not clients.still_knows(camera, "admin")
    assert not clients.still_knows(boss, "admin")
    with pytest.raises(UnauthenticatedError):
        clients.identify(f"Bearer {TOKENS['boss']}")
    tokens.write_text("{")
    clients.reload()
    assert clients.identify("Bearer new").account is camera.account


CLIENT = {"name": "camera", "roles": ["stream"], "token_sha256": [hash_token("secret")]}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"clients": [CLIENT | {"token_sha256": ["clear-secret"]}]}, "is not valid at clients.0.token_sha256.0: "),
        ({"clients": [CLIENT | {"token_sha256": []}]}, "is not valid at clients.0.token_sha256: "),
        ({"clients": [CLIENT | {"token": "clear-secret"}]}, "is not valid at clients.0.token: "),
        ({"clients": [CLIENT | {"roles": ["root"]}]}, "is not valid at clients.0.roles.0: "),
        ({"clients": [CLIENT | {"frames_per_s": 0}]}, "is not valid at clients.0.frames_per_s: "),
        ({"clients": [CLIENT | {"name": "two words"}]}, "is not valid at clients.0.name: "),
        ({"clients": [CLIENT, CLIENT]}, "has the same name twice"),
        ({"clients": [CLIENT, CLIENT | {"name": "other"}]}, "has the same token twice"),
        ("clear-secret", "is not valid at the file: "),
    ],
)
def test_a_file_that_is_wrong_is_refused_without_showing_what_is_in_it(
    tmp_path: Path, document: object, reason: str
) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(document))
    with pytest.raises(TokenFileError) as refused:
        read_token_file(path)
    assert reason in str(refused.value)
    assert "clear-secret" not in f"{refused.value!r} {refused.value.__cause__!r}"


def test_a_file_that_is_not_there_or_open_to_all_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match=r"cannot be read: No such file or directory$"):
        read_token_file(tmp_path / "tokens.json")
    write_tokens(tmp_path / "tokens.json").chmod(0o666)
    with pytest.raises(TokenFileError, match=r"^everybody on this machine can write to the token file .*: chmod it"):
        read_token_file(tmp_path / "tokens.json")
    (tmp_path / "tokens.json").chmod(0o600)
    (tmp_path / "tokens.json").write_bytes(b" " * 4_000_001)
    with pytest.raises(TokenFileError, match="more than 4000000 bytes"):
        read_token_file(tmp_path / "tokens.json")


def make_token(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["tokens", *map(str, arguments)])
    return main()


def test_the_command_makes_tokens_that_are_known_and_shows_them_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, first, second = (tmp_path / name for name in ("tokens.json", "first", "second"))
    options = ("--roles", "stream", "monitor", "--frames-per-s", "30", "--max-streams", "2")
    assert make_token(monkeypatch, tokens, "gate-7", "--out", first, *options) == 0
    assert make_token(monkeypatch, tokens, "gate-7", "--out", second) == 0  # beside the first
    clients = Clients(tokens)
    for path in (first, second):
        token = path.read_text().strip()
        assert len(token) == 43  # 32 bytes
        caller = clients.identify(f"Bearer {token}")
        assert caller.account.client == "gate-7"
        assert set(caller.roles) == {"stream", "monitor"}
        assert (caller.account.quota.frames_per_s, caller.account.quota.max_streams) == (30, 2)
        assert token not in tokens.read_text()
        shown = capsys.readouterr()
        assert token not in shown.out + shown.err
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tokens, first, second)} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second", "tokens.json"]


def test_the_command_refuses_in_one_sentence_and_leaves_the_file(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tokens.read_bytes()
    taken = tmp_path / "taken"
    taken.write_text("precious")
    for arguments, sentence in (
        (("new", "--out", taken), f"cannot write {taken}: File exists\n"),
        (("two words", "--out", tmp_path / "a"), "client is not valid: String should match pattern"),
        (("new", "--out", tmp_path / "b", "--frames-per-s", "-1"), "frames-per-s is not valid: Input should be"),
        (("camera", "--out", tmp_path / "c", "--roles", "admin"), "camera has its roles and quota already: change"),
    ):
        assert make_token(monkeypatch, tokens, *arguments) == 2
        assert capsys.readouterr().err.startswith(sentence)
    assert tokens.read_bytes() == before
    assert taken.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "tokens.json"]
