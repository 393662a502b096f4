import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.exposure import is_loopback, open_protection
from serving.options import ServerOptions
from tests.serving.authority import Authority, write_tokens


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> ServerOptions:
    """With all there is, on a loopback address."""
    folder = tmp_path_factory.mktemp("exposure")
    pair = Authority(folder, "house").issue("server")
    tokens = write_tokens(folder / "tokens.json")
    return ServerOptions(certificate=pair.certificate, key=pair.key, tokens=tokens)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "::1"])
def test_loopback_addresses_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.5", "camera.example", "localhost.example", "127.1"])
def test_all_others_may_be_reached(host: str) -> None:
    assert not is_loopback(host)


def test_on_loopback_nothing_is_needed_and_all_is_allowed(full: ServerOptions) -> None:
    assert open_protection(ServerOptions()) == (None, None)
    certificates, clients = open_protection(full)
    assert certificates is not None
    assert clients is not None


NEEDS = "others than this machine reach the server: give"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"certificate": None, "key": None, "tokens": None},
            f"on 0.0.0.0 {NEEDS} --certificate and --key and --tokens,",
        ),
        ({"tokens": None}, f"on 0.0.0.0 {NEEDS} --tokens, or --insecure if your network is trusted"),
        ({"certificate": None, "key": None}, f"on 0.0.0.0 {NEEDS} --certificate and --key,"),
        ({"host": "127.0.0.1", "admin_port": 0, "admin_host": "::", "tokens": None}, f"on :: {NEEDS} --tokens,"),
        ({"insecure": True}, "--insecure does nothing here"),
        ({"insecure": True, "host": "127.0.0.1", "tokens": None}, "--insecure does nothing here"),
        ({"key": None}, "--certificate and --key belong to each other"),
        ({"certificate": None, "key": None, "client_ca": Path("ca")}, "--client-ca does nothing without --certificate"),
    ],
)
def test_what_is_missing_or_does_nothing_is_refused(full: ServerOptions, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        open_protection(replace(full, **({"host": "0.0.0.0"} | change)))


def test_with_all_of_it_or_when_told_it_listens_everywhere(
    full: ServerOptions, caplog: pytest.LogCaptureFixture
) -> None:
    open_protection(replace(full, host="0.0.0.0", admin_port=0, admin_host="0.0.0.0"))
    open_protection(replace(full, admin_host="0.0.0.0", tokens=None))  # without a port there is no AdminService
    assert caplog.text == ""
    assert open_protection(ServerOptions(host="0.0.0.0", insecure=True)) == (None, None)
    assert "--insecure: whoever reaches 0.0.0.0 finds a server without --certificate and --key" in caplog.text
