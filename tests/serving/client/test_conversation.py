"""What a client sends and makes of answers, against a server that is played by hand: calls break on any schedule."""

from collections import deque
from collections.abc import Callable

import grpc
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from serving.client.conversation import Conversation
from serving.client.events import Degraded, Draining, ModelReloaded, Reconnected, StreamEvent, ignore_event
from serving.client.failures import CallError, Failure
from serving.client.frames import Frame
from serving.client.ledger import MAX_BEHIND
from serving.client.options import AdaptiveKeyFrames, ManualKeyFrames, Outputs, StreamOptions
from serving.client.retries import Attempts, Retry
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.conftest import toy_frame

LOST = Failure(code=grpc.StatusCode.UNAVAILABLE, message="connection reset")
ENDLESS = Retry(outage_s=1e9, max_attempts=10**9)
NO_MAPS = Outputs(labels="none")
IMAGE = toy_frame(1)


def converse(
    options: StreamOptions | None = None,
    retry: Retry = ENDLESS,
    on_event: Callable[[StreamEvent], None] = ignore_event,
) -> Conversation:
    attempts = Attempts(retry, "here:1", clock=lambda: 0.0, jitter=lambda: 0.0)
    return Conversation(options or StreamOptions(outputs=NO_MAPS), attempts, on_event)


def start(conversation: Conversation, token: str = "", *, is_resumed: bool = False) -> pb.StreamConfig:
    config = pb.StreamConfig()
    config.CopyFrom(conversation.begin_call().config)
    started = pb.StreamStarted(resume_token=token, resumed=is_resumed)
    conversation.receive(pb.SegmentStreamResponse(started=started))
    return config


def sent(conversation: Conversation) -> list[pb.Frame]:
    """All that there is to send now."""
    frames = []
    while conversation.has_request and (request := conversation.next_request()) is not None:
        frames.append(request.frame)
    return frames


def give(conversation: Conversation, *indices: int) -> None:
    for index in indices:
        conversation.give(Frame(IMAGE), bytes([index]))


def result(sequence: int) -> pb.SegmentStreamResponse:
    provenance = pb.Provenance(kind=pb.FRAME_KIND_PROPAGATED, key_frame_age=1)
    return pb.SegmentStreamResponse(result=pb.FrameResult(sequence=sequence, provenance=provenance))


def dropped(first: int, last: int) -> pb.SegmentStreamResponse:
    return pb.SegmentStreamResponse(dropped=pb.FramesDropped(first=first, last=last, count=last - first + 1))


class Player:
    """A server and a network that do what a schedule says."""

    def __init__(self, num_frames: int) -> None:
        self.conversation = converse(StreamOptions(outputs=NO_MAPS, delivery="drop-oldest", max_in_flight=3))
        self.left = deque(range(num_frames))
        self.at_server: deque[int] = deque()  # read and not answered
        self.taken: list[int] = []
        self.is_open = self.is_half_closed = False

    def play(self, action: str) -> None:
        match action:
            case "give" if self.left and self.conversation.has_room:
                self.conversation.give(Frame(IMAGE), bytes([self.left.popleft()]))
                if not self.left:
                    self.conversation.complete()
            case "open" if not self.is_open:
                self.is_open, self.is_half_closed = True, False
                start(self.conversation, "token")
            case "send" if self.is_open and not self.is_half_closed and self.conversation.has_request:
                request = self.conversation.next_request()
                if request is None:
                    self.is_half_closed = True
                else:
                    assert request.frame.data == bytes([request.frame.sequence])  # its own, also the second time
                    assert not self.at_server or request.frame.sequence > self.at_server[-1]
                    self.at_server.append(request.frame.sequence)
            case "answer" if self.at_server:
                self._tell(result(self.at_server.popleft()))
            case "refuse" if self.at_server:
                error = pb.FrameError(sequence=self.at_server.popleft(), code=3)
                self._tell(pb.SegmentStreamResponse(frame_error=error))
            case "drop newest" if self.at_server:  # told before the answers of older frames
                sequence = self.at_server.pop()
                self._tell(dropped(sequence, sequence))
            case "drop all" if self.at_server:
                self._tell(dropped(self.at_server[0], self.at_server[-1]))
                self.at_server.clear()
            case "drain" if self.is_open:
                notice = pb.StreamNotice(kind=pb.NOTICE_KIND_DRAINING)
                self.conversation.receive(pb.SegmentStreamResponse(notice=notice))
            case "break" if self.is_open:
                self.at_server.clear()
                self.is_open = False
                self.conversation.end_call(LOST)
            case "end" if self.is_open and self.is_half_closed and not self.at_server:
                self.is_open = False
                self.conversation.receive(pb.SegmentStreamResponse(summary=pb.StreamSummary()))
                self.conversation.end_call(None)
        self.taken += [answer.sequence for answer in self.conversation.take()]

    def _tell(self, response: pb.SegmentStreamResponse) -> None:
        self.conversation.receive(response)


ACTIONS = ["give", "open", "send", "answer", "refuse", "drop newest", "drop all", "drain", "break", "end"]
WELL = ["open", "give", "send", "answer", "end"]  # in turn, these bring any stream to its end


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 12), st.lists(st.sampled_from(ACTIONS), max_size=120))
def test_whatever_breaks_each_frame_has_one_answer_in_order(num_frames: int, schedule: list[str]) -> None:
    player = Player(num_frames)
    for action in schedule:
        player.play(action)
        assert player.taken == list(range(len(player.taken)))
    for _ in range(10 * num_frames):
        for action in WELL:
            player.play(action)
    assert player.taken == list(range(num_frames))
    assert player.conversation.is_through
    assert not player.conversation.needs_call
    totals = player.conversation.totals
    assert totals.frames == totals.results + totals.errors + totals.dropped == num_frames


def test_nothing_but_the_configuration_is_sent_before_the_server_agrees() -> None:
    conversation = converse()
    give(conversation, 0)
    conversation.begin_call()
    assert not conversation.has_request
    conversation.receive(pb.SegmentStreamResponse(started=pb.StreamStarted()))
    assert [frame.sequence for frame in sent(conversation)] == [0]
    assert not conversation.has_request


def test_a_stream_that_breaks_asks_for_its_state_and_forces_a_key_frame_if_it_is_lost() -> None:
    conversation = converse()
    give(conversation, 0, 1, 2)
    assert start(conversation, "first").resume_token == ""
    assert [frame.force_key_frame for frame in sent(conversation)] == [False, False, False]
    conversation.receive(result(0))
    conversation.end_call(LOST)
    assert start(conversation, "second", is_resumed=True).resume_token == "first"
    assert [(frame.sequence, frame.force_key_frame) for frame in sent(conversation)] == [(1, False), (2, False)]
    conversation.end_call(LOST)
    assert start(conversation, "third").resume_token == "second"
    assert [(frame.sequence, frame.force_key_frame) for frame in sent(conversation)] == [(1, True), (2, False)]
    assert [event for event in conversation.events if isinstance(event, Reconnected)] == [
        Reconnected(has_state=True, num_resent=2),
        Reconnected(has_state=False, num_resent=2),
    ]


def test_a_stream_that_ended_in_good_order_asks_for_no_state() -> None:
    conversation = converse()
    give(conversation, 0)
    start(conversation, "first")
    sent(conversation)
    conversation.receive(result(0))
    notice = pb.StreamNotice(kind=pb.NOTICE_KIND_DRAINING, message="it ends", grace_ms=5)
    conversation.receive(pb.SegmentStreamResponse(notice=notice))
    give(conversation, 1)
    assert conversation.has_request
    assert conversation.next_request() is None  # half-close
    conversation.receive(pb.SegmentStreamResponse(summary=pb.StreamSummary()))
    conversation.end_call(None)
    assert (conversation.needs_call, conversation.delay_s) == (True, 0.0)
    assert start(conversation).resume_token == ""
    assert [(frame.sequence, frame.force_key_frame) for frame in sent(conversation)] == [(1, True)]
    assert conversation.events[0] == Draining(message="it ends", grace_ms=5)


def test_a_call_that_ends_well_too_early_is_made_again() -> None:
    """A server would not do that; what stands in between might."""
    conversation = converse()
    give(conversation, 0)
    start(conversation)
    sent(conversation)
    conversation.end_call(None)
    start(conversation)
    assert [frame.sequence for frame in sent(conversation)] == [0]


def test_frames_keep_what_the_user_said_of_them() -> None:
    conversation = converse()
    conversation.give(Frame(IMAGE, force_key_frame=True, capture_time_us=7, deadline_ms=9), b"a")
    conversation.give(Frame(IMAGE), b"b")
    conversation.force_key_frame()
    conversation.give(Frame(IMAGE), b"c")
    conversation.give(Frame(IMAGE), b"d")
    start(conversation)
    frames = sent(conversation)
    assert [frame.force_key_frame for frame in frames] == [True, False, True, False]
    assert [frame.capture_time_us for frame in frames] == [7, 0, 0, 0]
    assert [frame.deadline_ms for frame in frames] == [9, 0, 0, 0]


def test_another_key_frame_policy_is_told_between_frames_and_in_later_calls() -> None:
    conversation = converse()
    give(conversation, 0)
    start(conversation)
    sent(conversation)
    conversation.follow(AdaptiveKeyFrames(max_interval=9))
    give(conversation, 1)
    control, frame = conversation.next_request(), conversation.next_request()
    assert control is not None
    assert control.control.key_frames.adaptive.max_interval == 9
    assert frame is not None
    assert frame.frame.sequence == 1
    conversation.follow(ManualKeyFrames())
    conversation.end_call(LOST)
    assert start(conversation).key_frames.HasField("manual")
    assert [frame.sequence for frame in sent(conversation)] == [0, 1]  # and no control


def test_notices_are_told_as_they_are() -> None:
    told: list[StreamEvent] = []
    conversation = converse(on_event=told.append)
    start(conversation)
    for notice in (
        pb.StreamNotice(kind=pb.NOTICE_KIND_DEGRADED, message="to hold 5 ms", level=3),
        pb.StreamNotice(kind=pb.NOTICE_KIND_MODEL_RELOADED, message="a new one", model="toy@2"),
        pb.StreamNotice(kind=99),  # type: ignore[arg-type]  # of a later version of the schema
    ):
        conversation.receive(pb.SegmentStreamResponse(notice=notice))
    conversation.receive(pb.SegmentStreamResponse())  # the same
    assert told == [
        Degraded(message="to hold 5 ms", level=3),
        ModelReloaded(message="a new one", model="toy@2"),
    ]
    assert list(conversation.events) == told


def test_answers_to_frames_that_wait_for_none_are_a_fault() -> None:
    conversation = converse()
    give(conversation, 0)
    start(conversation)
    with pytest.raises(CallError, match=r"^the server answered frame 0, which waits for no answer$"):
        conversation.receive(result(0))  # not yet sent
    sent(conversation)
    conversation.receive(result(0))
    with pytest.raises(CallError, match=r"^the server answered frame 0, which waits for no answer$"):
        conversation.receive(dropped(0, 3))


def test_a_damaged_map_ends_the_stream_in_one_sentence() -> None:
    conversation = converse()
    give(conversation, 0)
    start(conversation)
    sent(conversation)
    broken = pb.PixelMap(encoding=pb.PIXEL_MAP_ENCODING_DELTA_RLE, width=2, height=2, data=b"x")
    with pytest.raises(CallError, match=r"^frame 0 came back broken: the label map has encoding 4") as ended:
        conversation.receive(pb.SegmentStreamResponse(result=pb.FrameResult(sequence=0, labels=broken)))
    assert ended.value.code == grpc.StatusCode.DATA_LOSS


def test_frames_wait_while_too_many_have_no_answer_or_wait_for_an_older_one() -> None:
    conversation = converse(StreamOptions(outputs=NO_MAPS, max_in_flight=2))
    give(conversation, 0, 1)
    assert not conversation.has_room
    start(conversation)
    sent(conversation)
    conversation.receive(result(0))
    assert conversation.has_room
    for sequence in range(2, 2 + MAX_BEHIND - 1):  # frame 1 has no answer, frame 0 has one
        give(conversation, 0)
        sent(conversation)
        assert conversation.has_room is False
        conversation.receive(dropped(sequence, sequence))
    assert not conversation.has_room
    conversation.receive(result(1))
    conversation.take()
    assert conversation.has_room


def test_what_is_lost_after_the_last_answer_is_not_missed() -> None:
    conversation = converse(retry=Retry(max_attempts=0))
    give(conversation, 0)
    conversation.complete()
    start(conversation)
    sent(conversation)
    conversation.receive(result(0))
    conversation.end_call(LOST)
    assert conversation.is_through
    refused = Failure(code=grpc.StatusCode.INTERNAL, message="1 frames had no result", reason="FRAME_FAILED")
    with pytest.raises(CallError, match=r"^the server ended the call with INTERNAL: 1 frames had no result$"):
        conversation.end_call(refused)
