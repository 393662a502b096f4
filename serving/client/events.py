"""What happens to a stream beside its answers."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class ConnectionLost:
    """The call ended before the stream was through; it is opened again."""

    reason: str  # one sentence
    delay_s: float  # before the next attempt
    attempt: int  # of how many in a row that brought no answer, from 1

    def __str__(self) -> str:
        """One sentence."""
        return f"{self.reason}: attempt {self.attempt} to go on in {self.delay_s:.1f} s"


@dataclass(frozen=True, kw_only=True)
class Reconnected:
    """The stream goes on in another call."""

    has_state: bool  # False: its first frame is a forced key frame
    num_resent: int  # frames that are sent again: they, or their answers, were lost

    def __str__(self) -> str:
        """One sentence."""
        state = "with its state" if self.has_state else "with a key frame"
        return f"the stream goes on {state}, {self.num_resent} frames are sent again"


@dataclass(frozen=True, kw_only=True)
class Draining:
    """The server shuts down. The stream takes the answers under way and goes on in another call."""

    message: str  # of the server
    grace_ms: int  # for how long the server still answers

    def __str__(self) -> str:
        """One sentence."""
        return f"{self.message} within {self.grace_ms / 1e3:g} s: the stream goes on elsewhere"


@dataclass(frozen=True, kw_only=True)
class Degraded:
    """The level of what is given up for the latency objective has changed, up or down."""

    message: str  # of the server
    level: int  # 0 is nothing; 1 and 2 lengthen key-frame intervals, 3 and 4 also skip steps, 5 also drops frames

    def __str__(self) -> str:
        """One sentence."""
        return f"level {self.level} {self.message}"


@dataclass(frozen=True, kw_only=True)
class ModelReloaded:
    """Another version of the stream's model is there. The stream keeps its own; open another one to change."""

    message: str  # of the server
    model: str  # name@version that new streams get

    def __str__(self) -> str:
        """One sentence."""
        return self.message


StreamEvent: TypeAlias = ConnectionLost | Reconnected | Draining | Degraded | ModelReloaded


def ignore_event(event: StreamEvent) -> None:
    """For who looks at `events` instead."""
    del event
