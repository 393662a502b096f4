"""The command `python -m serving.server` with all that protects it, in a process of its own."""

import json
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.authority import TOKENS, Authority, Pair, bearer, write_tokens
from tests.serving.conftest import (
    REPOSITORY,
    SERVER_COMMAND,
    ServerProcess,
    open_admin_stub,
    open_stub,
    start_server,
    wait_until,
    write_toy_bundle,
)
from tests.serving.conversations import Call, configuration, hear_out, heard, in_asyncio, requests, send

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


class Secured(NamedTuple):
    """A server that wants a certificate and a token, and what its operator has on disk."""

    server: ServerProcess
    authority: Authority
    pair: Pair  # of the server
    client: Pair
    tokens: Path
    root: Path  # of bundles

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            self.authority.certificate.read_bytes(), self.client.key.read_bytes(), self.client.certificate.read_bytes()
        )

    def http(self, token: str | None = None) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        verify = ssl.create_default_context(cafile=self.authority.certificate)
        return httpx.Client(base_url=f"https://127.0.0.1:{self.server.http_port}", headers=headers, verify=verify)


@pytest.fixture(scope="module")
def secured(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder, "house")
    pair, client = authority.issue("server"), authority.issue("camera-7")
    tokens = write_tokens(folder / "tokens.json")
    (folder / "root").mkdir()
    arguments = [str(toy_folder), "--admin-port", "0", "--certificate", pair.certificate, "--key", pair.key]
    arguments += ["--client-ca", authority.certificate, "--tokens", tokens, "--bundle-root", folder / "root"]
    with start_server(folder / "log", *map(str, arguments)) as server:
        yield Secured(server, authority, pair, client, tokens, folder / "root")


async def stub_code(call: object) -> grpc.StatusCode:
    try:
        await call  # type: ignore[misc]  # grpcio-tools writes no types for stubs
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@in_asyncio
async def test_a_client_with_certificate_and_token_streams(secured: Secured) -> None:
    async with grpc.aio.secure_channel(secured.server.address, secured.credentials()) as channel:
        call: Call = open_stub(channel).SegmentStream(metadata=bearer("camera"))
        await send(call, configuration(), *requests(10, 20))
        await call.done_writing()
        assert (await hear_out(call)).labels == [20, 30]


@in_asyncio
async def test_nobody_gets_in_with_less(secured: Secured) -> None:
    ca_alone = grpc.ssl_channel_credentials(secured.authority.certificate.read_bytes())
    async with (
        grpc.aio.secure_channel(secured.server.address, ca_alone) as without_certificate,
        grpc.aio.insecure_channel(secured.server.address) as in_clear,
        grpc.aio.secure_channel(secured.server.address, secured.credentials()) as without_token,
    ):
        for channel, code in (
            (without_certificate, grpc.StatusCode.UNAVAILABLE),
            (in_clear, grpc.StatusCode.UNAVAILABLE),
            (without_token, UNAUTHENTICATED),
        ):
            assert await stub_code(open_stub(channel).ListModels(pb.ListModelsRequest())) == code
        check = health_pb2_grpc.HealthStub(without_token).Check(health_pb2.HealthCheckRequest())
        assert (await check).status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(without_token)
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        with pytest.raises(grpc.aio.AioRpcError, match="this server wants a token"):
            await reflection.ServerReflectionInfo(iter(asked)).read()
        (listed,) = [each async for each in reflection.ServerReflectionInfo(iter(asked), metadata=bearer("graphs"))]
        assert listed.list_services_response.service


@in_asyncio
async def test_the_port_for_administrators_has_the_same_rules(secured: Secured) -> None:
    bundle = write_toy_bundle(secured.root / "other", name="other")
    outside = write_toy_bundle(secured.root.parent / "outside", name="outside")
    address = f"127.0.0.1:{secured.server.admin_port}"
    async with (
        grpc.aio.secure_channel(address, secured.credentials()) as channel,
        grpc.aio.insecure_channel(address) as in_clear,
    ):
        stub, asked = open_admin_stub(channel), pb.ListStreamsRequest()
        assert await stub_code(open_admin_stub(in_clear).ListStreams(asked)) == grpc.StatusCode.UNAVAILABLE
        assert await stub_code(stub.ListStreams(asked)) == UNAUTHENTICATED
        assert await stub_code(stub.ListStreams(asked, metadata=bearer("camera"))) == DENIED
        assert list((await stub.ListStreams(asked, metadata=bearer("boss"))).streams) == []
        load = pb.LoadModelRequest(bundle=str(outside))
        assert await stub_code(stub.LoadModel(load, metadata=bearer("boss"))) == grpc.StatusCode.INVALID_ARGUMENT
        loaded = await stub.LoadModel(pb.LoadModelRequest(bundle=bundle.name), metadata=bearer("boss"))
        assert loaded.model.name == "other"
        await stub.UnloadModel(pb.UnloadModelRequest(model="other@1"), metadata=bearer("boss"))


def test_http_is_encrypted_and_tells_strangers_whether_it_lives_and_no_more(secured: Secured) -> None:
    with secured.http() as stranger, secured.http(TOKENS["camera"]) as camera, secured.http(TOKENS["graphs"]) as graphs:
        for path in ("/healthz", "/readyz"):
            assert stranger.get(path).json() == {"ok": True, "reason": ""}
        for path in (
            "/metrics",
            "/v1/models",
            "/openapi.json",
            "/nothing",
            "/healthz/",
            "//metrics",
            "/healthz/../metrics",
        ):
            refused = stranger.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
            assert camera.get(path).status_code == 403
        assert "flowseg_open_streams" in graphs.get("/metrics").text
        assert graphs.get("/v1/models").json()["models"]
        assert graphs.get("/nothing").status_code == 404
        assert "server" not in graphs.get("/healthz").headers
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{secured.server.http_port}/healthz")


@in_asyncio
async def test_sighup_reads_the_tokens_again_and_ends_the_streams_of_who_is_gone(secured: Secured) -> None:
    before, earlier = secured.tokens.read_text(), secured.server.log.read_text().count("3 clients")
    async with grpc.aio.secure_channel(secured.server.address, secured.credentials()) as channel:
        call: Call = open_stub(channel).SegmentStream(metadata=bearer("camera"))
        await send(call, configuration())
        await heard(call, "started")
        document = json.loads(before)
        document["clients"] = [entry for entry in document["clients"] if entry["name"] != "camera"]
        secured.tokens.write_text(json.dumps(document))
        secured.server.process.send_signal(signal.SIGHUP)
        ended = await hear_out(call)
        assert (ended.code, ended.message) == (UNAUTHENTICATED, "the token of this stream was taken back")
        secured.tokens.write_text("{broken")
        secured.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "tokens are not reloaded" in secured.server.log.read_text())
        info = pb.GetServerInfoRequest()
        assert await stub_code(open_stub(channel).GetServerInfo(info, metadata=bearer("boss"))) == grpc.StatusCode.OK
        secured.tokens.write_text(before)
        secured.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: secured.server.log.read_text().count("3 clients") > earlier)


def test_a_renewed_certificate_is_served_on_all_ports_without_a_restart(secured: Secured) -> None:
    """The old authority trusts the new certificate too: what is looked at is its number."""
    wanted = [secured.server.port, secured.server.http_port, secured.server.admin_port]
    serials = [serials_on(secured, wanted)]
    secured.pair.take(secured.authority.issue("renewed"))
    serials.append(serials_on(secured, wanted))
    assert len(serials[0]) == len(serials[1]) == 1
    assert serials[0] != serials[1]


def serials_on(secured: Secured, ports: list[int | None]) -> set[int]:
    """The numbers of the certificates that are shown on some ports."""
    context = ssl.create_default_context(cafile=secured.authority.certificate)
    context.load_cert_chain(secured.client.certificate, secured.client.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    serials = set()
    for port in ports:
        with (
            socket.create_connection(("127.0.0.1", port or 0)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as encrypted,
        ):
            certificate = encrypted.getpeercert(binary_form=True)
            assert certificate is not None
            serials.add(x509.load_der_x509_certificate(certificate).serial_number)
    return serials


@in_asyncio
async def test_neither_log_nor_errors_hold_a_secret(secured: Secured) -> None:
    """After calls that go well and calls that do not: no tokens, nor their hashes, no keys, no resume tokens."""
    said = []
    async with grpc.aio.secure_channel(secured.server.address, secured.credentials()) as channel:
        for headers in (bearer("camera"), bearer("boss"), (("authorization", "Bearer stray-secret"),), ()):
            call: Call = open_stub(channel).SegmentStream(metadata=headers)
            await send(call, configuration(), *requests(10, b"no image"))
            await call.done_writing()
            conversation = await hear_out(call)
            said.append(f"{conversation.code} {conversation.message} {conversation.details}")
            if headers == bearer("camera"):
                resume_token = conversation.responses[0].started.resume_token
    async with grpc.aio.insecure_channel(secured.server.address) as in_clear:
        assert await stub_code(open_stub(in_clear).ListModels(pb.ListModelsRequest())) == grpc.StatusCode.UNAVAILABLE
    for token in ("stray-secret", TOKENS["camera"]):
        with secured.http(token) as http:
            said.append(http.get("/metrics").text)
    key = secured.pair.key.read_bytes()
    secured.pair.key.write_bytes(secured.client.key.read_bytes())  # a key that does not fit
    with secured.http(TOKENS["graphs"]) as http:
        said.append(http.get("/metrics").text)
    secured.pair.key.write_bytes(key)
    secured.tokens.touch()
    secured.server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "tokens are reloaded" in secured.server.log.read_text())
    log = secured.server.log.read_text()
    assert "by camera at ipv4:" in log
    assert "is not the key of" in log
    assert "Handshake failed" not in log  # and gRPC says nothing of its own: who knocks would fill the disk
    secrets = [*TOKENS.values(), "stray-secret", *re.findall(r"[0-9a-f]{64}", secured.tokens.read_text()), resume_token]
    for secret in [*secrets, "PRIVATE KEY", key.decode().splitlines()[1]]:
        assert secret
        assert secret not in log
        assert secret not in "".join(said)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--host", "0.0.0.0"), "on 0.0.0.0 others than this machine reach the server: give --certificate and --key"),
        (("--admin-port", "0", "--admin-host", "0.0.0.0"), "on 0.0.0.0 others than this machine reach the server"),
        (("--insecure",), "--insecure does nothing here"),
        (("--tokens", "/nothing"), "the token file /nothing cannot be read: No such file or directory"),
        (("--certificate", "/nothing", "--key", "/nothing"), "/nothing cannot be read: No such file or directory"),
    ],
)
def test_a_server_that_would_not_be_safe_does_not_start(
    toy_folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    command = [*SERVER_COMMAND, str(toy_folder), "--port", "0", "--http-port", "0", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(sentence)
    assert ended.stderr.count("\n") == 1
