import asyncio
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest

from serving.bundle import Bundle
from serving.key_frames import FixedInterval
from serving.models import Models, ServedModel
from serving.observability import Metrics
from serving.status import AddressError, Readiness, bind, create_app
from tests.serving.conftest import served_model, toy_frame

Get = Callable[[str], httpx.Response]


@pytest.fixture
def model(toy_bundle: Bundle) -> Iterator[ServedModel]:
    model = served_model(toy_bundle)
    yield model
    model.close()


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def get(model: ServedModel, readiness: Readiness, metrics: Metrics) -> Get:
    """Asks the app, without a socket."""
    transport = httpx.ASGITransport(create_app(Models([model]), readiness, metrics))

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get(path)

    return lambda path: asyncio.run(ask(path))


def test_a_server_that_loads_is_alive_and_not_ready(get: Get) -> None:
    assert get("/healthz").status_code == 200
    answer = get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ok": False, "reason": "models are loading"})


def test_a_server_is_ready_until_it_says_that_it_is_not(get: Get, readiness: Readiness) -> None:
    readiness.set(True, "")
    answer = get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "reason": ""})
    readiness.set(False, "the server shuts down")
    answer = get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ok": False, "reason": "the server shuts down"})


def test_a_model_that_stopped_means_restart_but_not_while_shutting_down(
    get: Get, model: ServedModel, readiness: Readiness, metrics: Metrics
) -> None:
    model.load(metrics.watch_runs(model.label))
    readiness.set(True, "")
    assert get("/healthz").status_code == 200
    model.close()
    answer = get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"ok": False, "reason": "stopped: toy@1"})
    readiness.set(False, "the server shuts down")
    assert get("/healthz").status_code == 200


def test_models_are_listed_whole_before_and_after_they_are_ready(
    get: Get, model: ServedModel, metrics: Metrics
) -> None:
    (listed,) = get("/v1/models").json()["models"]
    assert listed["state"] == "MODEL_STATE_LOADING"
    model.load(metrics.watch_runs(model.label))
    (listed,) = get("/v1/models").json()["models"]
    assert listed["state"] == "MODEL_STATE_READY"
    assert (listed["name"], listed["version"], listed["precision"]) == ("toy", "1", "fp32")
    assert (listed["width"], listed["height"], len(listed["classes"])) == (64, 64, 251)
    assert listed["classes"][0] == {"name": "class 0", "red": 0, "green": 255, "blue": 0}


def test_metrics_are_prometheus_text(get: Get, model: ServedModel, metrics: Metrics) -> None:
    model.load(metrics.watch_runs(model.label))
    metrics.watch_streams(model.label, lambda: model.num_streams)
    with model.open_stream(FixedInterval(1), capacity=1) as stream:
        stream.submit(toy_frame(1)).result()
        answer = get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'flowseg_open_streams{model="toy@1"} 1.0' in lines
    # the warm-up runs each graph once too
    assert 'flowseg_graph_seconds_count{graph="step",model="toy@1"} 2.0' in lines
    assert 'flowseg_open_streams{model="toy@1"} 0.0' in get("/metrics").text.splitlines()


def test_an_address_that_is_taken_or_not_ours_is_refused_in_one_sentence() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: Address already in use$"):
            bind("127.0.0.1", port)
    with pytest.raises(AddressError, match=r"^cannot listen on 192\.0\.2\.1:0: "):
        bind("192.0.2.1", 0)
    with pytest.raises(AddressError, match=r"^cannot listen on no such host:0: "):
        bind("no such host", 0)


def test_port_0_is_a_free_port() -> None:
    with bind("127.0.0.1", 0) as first, bind("127.0.0.1", 0) as second:
        ports = {listening.getsockname()[1] for listening in (first, second)}
        assert len(ports) == 2
        with socket.create_connection(first.getsockname()):
            pass
