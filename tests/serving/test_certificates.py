import asyncio
import logging
import ssl
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from serving.bundle import Bundle
from serving.certificates import CertificateError, Certificates
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.authority import Authority, Pair, private_pem
from tests.serving.conftest import open_stub, serve_here, served_model
from tests.serving.conversations import configuration, heard, in_asyncio, send


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "house")


@pytest.fixture
def server_pair(authority: Authority) -> Pair:
    return authority.issue("server")


def tls(ca: Path, client: Pair | None = None) -> grpc.ChannelCredentials:
    if client is None:
        return grpc.ssl_channel_credentials(ca.read_bytes())
    return grpc.ssl_channel_credentials(ca.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes())


async def is_served(address: str, credentials: grpc.ChannelCredentials) -> bool:
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        try:
            await open_stub(channel).ListModels(pb.ListModelsRequest())
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True


@in_asyncio
async def test_a_client_trusts_its_authority_alone(
    toy_bundle: Bundle, tmp_path: Path, authority: Authority, server_pair: Pair
) -> None:
    certificates = Certificates(server_pair.files())
    async with serve_here(served_model(toy_bundle), certificates=certificates) as server:
        assert await is_served(server.address, tls(authority.certificate))
        assert not await is_served(server.address, tls(Authority(tmp_path, "other").certificate))
        async with grpc.aio.insecure_channel(server.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await open_stub(channel).ListModels(pb.ListModelsRequest())


@in_asyncio
async def test_with_a_client_ca_nobody_gets_in_without_its_certificate(
    toy_bundle: Bundle, tmp_path: Path, authority: Authority, server_pair: Pair
) -> None:
    guests = Authority(tmp_path, "guests")
    certificates = Certificates(server_pair.files(guests.certificate))
    async with serve_here(served_model(toy_bundle), certificates=certificates) as server:
        ca = authority.certificate
        assert await is_served(server.address, tls(ca, guests.issue("camera")))
        assert not await is_served(server.address, tls(ca))
        assert not await is_served(server.address, tls(ca, authority.issue("of-the-wrong-authority")))


@in_asyncio
async def test_files_that_are_replaced_are_taken_at_the_next_connection_and_open_ones_go_on(
    toy_bundle: Bundle, tmp_path: Path, authority: Authority, server_pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """The new certificate is of a new authority. Halves and rubbish change nothing."""
    caplog.set_level(logging.INFO)
    renewed = Authority(tmp_path, "renewed")
    old, new = tls(authority.certificate), tls(renewed.certificate)
    certificates = Certificates(server_pair.files())
    async with (
        serve_here(served_model(toy_bundle), certificates=certificates) as server,
        grpc.aio.secure_channel(server.address, old) as channel,
    ):
        call = open_stub(channel).SegmentStream()
        await send(call, configuration())
        await heard(call, "started")
        pair = renewed.issue("next")
        server_pair.certificate.write_bytes(pair.certificate.read_bytes())  # and the key is still the old one
        assert await is_served(server.address, old)
        assert await is_served(server.address, old)
        assert caplog.text.count(f"{server_pair.key} is not the key of {server_pair.certificate}") == 1
        server_pair.take(pair)
        assert await is_served(server.address, new)
        assert not await is_served(server.address, old)
        server_pair.key.unlink()
        assert await is_served(server.address, new)
        await call.done_writing()
        await heard(call, "summary")
    assert caplog.text.count("the certificate is read again") == 1
    assert "PRIVATE KEY" not in caplog.text


@in_asyncio
async def test_https_takes_replaced_files_too(tmp_path: Path, authority: Authority, server_pair: Pair) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    context = Certificates(server_pair.files()).http_context()
    trusting = ssl.create_default_context(cafile=authority.certificate)
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for host in ("127.0.0.1", "localhost"):  # without a name in the handshake, and with one
            serials = []
            for _ in range(2):
                trusting.check_hostname = False
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=host)
                peer = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                serials.append(x509.load_der_x509_certificate(peer).serial_number)
                writer.close()
                await writer.wait_closed()
                server_pair.take(authority.issue(f"next-{host}-{len(serials)}"))
            assert serials[0] != serials[1]


def test_files_that_cannot_be_used_are_refused_in_one_sentence(
    tmp_path: Path, authority: Authority, server_pair: Pair
) -> None:
    other, rubbish = authority.issue("other"), tmp_path / "rubbish"
    rubbish.write_text("no certificate")
    locked = tmp_path / "locked.key"
    locked.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), "password"))
    no_pem = "are no certificate and key in PEM without a password"
    for files, sentence in (
        (Pair(server_pair.certificate, other.key).files(), f"{other.key} is not the key of {server_pair.certificate}"),
        (Pair(server_pair.certificate, rubbish).files(), f"{server_pair.certificate} and {rubbish} {no_pem}"),
        (Pair(rubbish, server_pair.key).files(), f"{rubbish} and {server_pair.key} {no_pem}"),
        (Pair(server_pair.certificate, locked).files(), f"{server_pair.certificate} and {locked} {no_pem}"),
        (
            Pair(tmp_path / "nothing", server_pair.key).files(),
            f"{tmp_path / 'nothing'} cannot be read: No such file or directory",
        ),
        (server_pair.files(rubbish), f"{rubbish} holds no certificate in PEM"),
    ):
        with pytest.raises(CertificateError) as refused:
            Certificates(files)
        assert str(refused.value) == sentence


def test_a_key_that_everybody_can_read_is_complained_about(server_pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    Certificates(server_pair.files())
    assert caplog.text == ""
    server_pair.key.chmod(0o644)
    Certificates(server_pair.files())
    assert f"everybody on this machine can read {server_pair.key}" in caplog.text
