"""Several servers behind one client, and their rolling restart."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from serving.client import AsyncSegmentationClient, CallError, Draining, SegmentationClient
from serving.client.balancing import target_of
from tests.serving.client.streams import LOSSLESS, ONCE, PATIENT, Streamed, label_of
from tests.serving.conftest import ServerProcess, start_server, toy_frame
from tests.serving.conversations import in_asyncio


def test_one_server_is_reached_as_before() -> None:
    assert target_of("127.0.0.1:50051") == ("127.0.0.1:50051", ())
    assert target_of("flowseg.example:50051") == ("flowseg.example:50051", ())


def test_several_are_named_by_addresses_or_by_one_name() -> None:
    assert target_of("127.0.0.1:1,127.0.0.2:2")[0] == "ipv4:127.0.0.1:1,127.0.0.2:2"
    assert target_of("[::1]:1,[::1]:2")[0] == "ipv6:[::1]:1,[::1]:2"
    assert target_of("dns:///flowseg:50051")[0] == "dns:///flowseg:50051"


@pytest.mark.parametrize(
    ("servers", "sentence"),
    [
        ("localhost:1,127.0.0.1:2", "'localhost:1' is no ADDRESS:PORT"),
        ("127.0.0.1:1,", "'' is no ADDRESS:PORT"),
        ("127.0.0.1,127.0.0.1:2", "'127.0.0.1' is no ADDRESS:PORT"),
        ("127.0.0.1:1,[::1]:2", "have IPv4 and IPv6 addresses"),
    ],
)
def test_servers_that_cannot_be_reached_together_are_refused(servers: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("[", r"\[")):
        SegmentationClient(servers)


class Fleet:
    """Two servers that are restarted on the ports they had."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self._folder, self._logs = folder, logs
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count(1)
        self.servers: list[ServerProcess] = []

    async def start(self) -> None:
        self.servers = list(await asyncio.gather(self._serve(0), self._serve(0)))

    async def restart(self, place: int) -> None:
        """As an orchestrator does: SIGTERM, until it has left, and another one in its place."""
        old = self.servers[place]
        old.process.terminate()
        assert await asyncio.to_thread(old.process.wait, 30) == 0
        self.servers[place] = await self._serve(old.port)

    def close(self) -> None:
        self._stack.close()

    async def _serve(self, port: int) -> ServerProcess:
        log = self._logs / f"log-{next(self._numbers)}"
        return await asyncio.to_thread(
            self._stack.enter_context, start_server(log, str(self._folder), "--grace-s", "25", port=port)
        )


@in_asyncio
async def test_a_rolling_restart_loses_no_stream_start_and_moves_the_streams_that_are_open(
    toy_folder: Path, tmp_path: Path
) -> None:
    """Without attempts of our own: what gRPC does with the service config must be enough."""
    fleet = Fleet(toy_folder, tmp_path)
    try:
        await fleet.start()
        address = ",".join(server.address for server in fleet.servers)
        is_over = False
        starts: Counter[str] = Counter()

        async def start_streams() -> None:
            async with AsyncSegmentationClient(address, retry=ONCE) as client:
                while not is_over:
                    try:
                        async with client.stream(LOSSLESS) as stream:
                            async for answer in stream.segment([toy_frame(10)]):
                                starts[f"answered {label_of(answer)}"] += 1
                    except CallError as error:
                        starts[str(error)] += 1

        async def stay_open(stays: Callable[[], bool]) -> Streamed:
            async def frames() -> AsyncIterator:  # type: ignore[type-arg]  # of arrays
                while stays():
                    yield toy_frame(10)
                    await asyncio.sleep(0.01)

            async with AsyncSegmentationClient(address, retry=PATIENT) as client, client.stream(LOSSLESS) as stream:
                answers = [answer async for answer in stream.segment(frames())]
                return Streamed(answers, stream.events, stream.totals, None)

        starting = [asyncio.create_task(start_streams()) for _ in range(3)]
        staying = asyncio.create_task(stay_open(lambda: not is_over))
        for place in (0, 1):
            await fleet.restart(place)
        is_over = True
        stayed = await staying
        await asyncio.gather(*starting)
    finally:
        fleet.close()
    assert set(starts) == {"answered 20"}
    assert starts.total() > 100
    assert stayed.totals.frames == stayed.totals.results == len(stayed.answers)
    assert stayed.totals.reconnects == sum(isinstance(event, Draining) for event in stayed.events) > 0
    for log in tmp_path.glob("log-*"):
        assert "Traceback" not in log.read_text()
