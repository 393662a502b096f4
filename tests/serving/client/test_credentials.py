"""Both clients, and the command, against servers that want a certificate, a token or both."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from serving.bundle import Bundle
from serving.certificates import Certificates
from serving.client import AsyncSegmentationClient, CallError, Credentials, CredentialsError, Retry, SegmentationClient
from serving.clients import Clients
from tests.serving.authority import TOKENS, Authority, Pair, write_tokens
from tests.serving.client.streams import frames_of, serve_beside
from tests.serving.client.test_command import refusal, write_video
from tests.serving.conftest import SIZE, LocalServer, served_model

IMPATIENT = Retry(connect_s=0.3, outage_s=0.3, first_delay_s=0.05)


class House:
    """An authority, a certificate of the server and one of a client, and tokens, one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority(folder, "house")
        self.ca = authority.certificate
        self.server, self.client = authority.issue("server"), authority.issue("camera")
        self.elsewhere = authority.issue("elsewhere", "elsewhere.example")
        self.tokens = write_tokens(folder / "tokens.json")
        for name, token in (TOKENS | {"stranger": "stray-secret"}).items():
            (folder / f"{name}.token").write_text(token + "\n")

    def token(self, name: str) -> Path:
        return self.folder / f"{name}.token"

    def credentials(self, **others: Path | None) -> Credentials:
        """Those that are right, but for some."""
        mine = {"ca": self.ca, "certificate": self.client.certificate, "key": self.client.key}
        return Credentials(**(mine | {"token_file": self.token("camera")} | others))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def strict(house: House, toy_bundle: Bundle) -> Iterator[LocalServer]:
    """Wants a certificate and a token."""
    certificates, clients = Certificates(house.server.files(house.ca)), Clients(house.tokens)
    with serve_beside(served_model(toy_bundle), certificates=certificates, clients=clients) as server:
        yield server


@pytest.fixture(scope="module")
def open_to_all(toy_bundle: Bundle) -> Iterator[LocalServer]:
    with serve_beside(served_model(toy_bundle)) as server:
        yield server


def ask_blocking(server: str, credentials: Credentials) -> int:
    with SegmentationClient(server, retry=IMPATIENT, credentials=credentials) as client:
        client.models()
        with client.stream() as stream:
            return len(list(stream.segment(frames_of(1, 2, 3))))


def ask_async(server: str, credentials: Credentials) -> int:
    async def ask() -> int:
        async with AsyncSegmentationClient(server, retry=IMPATIENT, credentials=credentials) as client:
            await client.models()
            async with client.stream() as stream:
                return len([answer async for answer in stream.segment(frames_of(1, 2, 3))])

    return asyncio.run(ask())


def open_blocking(server: str, credentials: Credentials) -> None:
    with SegmentationClient(server, retry=IMPATIENT, credentials=credentials) as client, client.stream():
        pass


def open_async(server: str, credentials: Credentials) -> None:
    async def ask() -> None:
        async with (
            AsyncSegmentationClient(server, retry=IMPATIENT, credentials=credentials) as client,
            client.stream(),
        ):
            pass

    asyncio.run(ask())


@pytest.mark.parametrize("ask", [ask_blocking, ask_async])
def test_with_certificate_and_token_a_client_is_served(
    strict: LocalServer, house: House, ask: Callable[[str, Credentials], int]
) -> None:
    assert ask(strict.address, house.credentials()) == 3


NO_TOKEN = (
    "the server ended the call with UNAUTHENTICATED (--token-file FILE): this server wants a token: send"
    " 'authorization: Bearer TOKEN'"
)
WRONG_TOKEN = (
    "the server ended the call with UNAUTHENTICATED (--token-file FILE): the token is not known here: ask the server's"
    " operator for one"
)
NO_ROLE = "the server ended the call with PERMISSION_DENIED: the client boss has not the role for this: stream"
HANGS_UP = "hangs up: it wants an encrypted connection (--ca FILE), or a certificate of the client that it trusts"


@pytest.mark.parametrize("ask", [ask_blocking, ask_async, open_blocking, open_async])
def test_what_is_missing_or_wrong_is_said_in_a_sentence(
    strict: LocalServer, house: House, tmp_path: Path, ask: Callable[[str, Credentials], object]
) -> None:
    """At once, if trying again is of no use, whether a stream is opened or something is asked."""
    other = Authority(tmp_path, "other")
    cases: dict[str, Credentials] = {
        NO_TOKEN: house.credentials(token_file=None),
        WRONG_TOKEN: house.credentials(token_file=house.token("stranger")),
        "its certificate is not signed by the CA that was given, or has expired": house.credentials(
            ca=other.certificate
        ),
        HANGS_UP: house.credentials(certificate=None, key=None),
        f"{HANGS_UP} ": Credentials(token_file=house.token("camera")),
    }
    for sentence, credentials in cases.items():
        with pytest.raises(CallError, match=re.escape(sentence.strip())) as refused:
            ask(strict.address, credentials)
        assert "secret" not in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("open_stream", [open_blocking, open_async])
def test_a_role_that_is_missing_is_said_in_a_sentence(
    strict: LocalServer, house: House, open_stream: Callable[[str, Credentials], None]
) -> None:
    with pytest.raises(CallError, match=f"^{NO_ROLE}$") as refused:
        open_stream(strict.address, house.credentials(token_file=house.token("boss")))
    assert refused.value.code == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("ask", [ask_blocking, open_blocking, ask_async, open_async])
def test_a_server_that_does_not_encrypt_is_not_talked_to(
    open_to_all: LocalServer, house: House, ask: Callable[[str, Credentials], object]
) -> None:
    with pytest.raises(CallError, match=r"it does not encrypt: leave the CA away, or ask its operator$"):
        ask(open_to_all.address, Credentials(ca=house.ca))


def test_a_certificate_of_another_host_is_not_trusted(toy_bundle: Bundle, house: House) -> None:
    certificates = Certificates(house.elsewhere.files())
    with (
        serve_beside(served_model(toy_bundle), certificates=certificates) as server,
        pytest.raises(CallError, match=r"its certificate is for another host name or address$"),
    ):
        ask_blocking(server.address, Credentials(ca=house.ca))


def test_a_token_file_may_be_replaced_while_the_client_runs(strict: LocalServer, house: House, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("stray-secret")
    with SegmentationClient(strict.address, credentials=house.credentials(token_file=token_file)) as client:
        with pytest.raises(CallError, match=r"^the server ended the call with UNAUTHENTICATED"):
            client.models()
        token_file.write_text(TOKENS["camera"])
        assert client.models()


def test_credentials_that_cannot_work_are_refused_before_anything_is_sent(house: House, tmp_path: Path) -> None:
    rubbish, two_words = tmp_path / "rubbish", tmp_path / "two-words"
    rubbish.write_text("")
    two_words.write_text("clear secret\n")
    local, nothing, mine = "127.0.0.1:1", tmp_path / "nothing", house.client
    for server, credentials, sentence in (
        (local, Credentials(certificate=mine.certificate), "a client's certificate and its key belong to each other"),
        (local, Credentials(certificate=mine.certificate, key=mine.key), "a client's certificate is for encrypted"),
        ("camera.example:1", Credentials(token_file=house.token("camera")), "a token is not sent to camera.example:1"),
        ("10.0.0.1:1", Credentials(token_file=house.token("camera")), "a token is not sent to 10.0.0.1:1 where others"),
        (
            "127.0.0.1:1,10.0.0.1:1",
            Credentials(token_file=house.token("camera")),
            "a token is not sent to 127.0.0.1:1,",
        ),
        (local, Credentials(token_file=nothing), f"the token cannot be read from {nothing}: No such file or directory"),
        (local, Credentials(token_file=rubbish), f"{rubbish} is to hold one token and nothing else"),
        (local, Credentials(token_file=two_words), f"{two_words} is to hold one token and nothing else"),
        (local, Credentials(ca=nothing), f"the CA cannot be read from {nothing}: No such file or directory"),
        (local, Credentials(ca=rubbish), f"{rubbish} holds no certificate in PEM"),
        (
            local,
            house.credentials(key=house.server.key),
            f"{mine.certificate} and {house.server.key} are no certificate",
        ),
    ):
        with pytest.raises(CredentialsError, match=f"^{re.escape(sentence)}") as refused:
            SegmentationClient(server, credentials=credentials)
        assert "clear" not in str(refused.value)
    SegmentationClient("camera.example:1", credentials=house.credentials()).close()


def test_the_command_takes_credentials_from_files(strict: LocalServer, house: House, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", 2, SIZE, SIZE)
    pair: Pair = house.client
    arguments: list[str | Path] = [
        video,
        "--server",
        strict.address,
        "--ca",
        house.ca,
        "--certificate",
        pair.certificate,
    ]
    arguments += ["--key", pair.key, "--token-file"]
    assert refusal(*arguments, house.token("stranger")) == WRONG_TOKEN
    assert refusal(video, "--server", strict.address, "--key", pair.key).startswith(
        "a client's certificate and its key"
    )
