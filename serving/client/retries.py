"""When a call that failed is made again, and when that is given up."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from serving.client.failures import CallError, Failure, no_server

GROWTH = 2.0  # of the delay from one attempt to the next


@dataclass(frozen=True, kw_only=True)
class Retry:
    """For how long to try again. Every answer to a frame sets the counts back."""

    connect_s: float = 10.0  # seconds to wait for a server that was never heard of
    outage_s: float = 60.0  # seconds to wait for a server that was lost, or says that it starts or shuts down
    max_attempts: int = 20  # in a row without an answer; 0: what fails has failed
    first_delay_s: float = 0.2  # before the first attempt; it doubles from one to the next
    max_delay_s: float = 5.0  # before any attempt
    patience_s: float = 0.0  # seconds to wait for a place on a server whose places are all taken

    def check(self) -> None:
        """Refuses values that cannot work; ValueError says which."""
        for name in ("connect_s", "outage_s", "max_attempts", "first_delay_s", "max_delay_s", "patience_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more and finite, it is {getattr(self, name)}")


DEFAULT_RETRY = Retry()


class Attempts:
    """The calls of one stream since its last answer."""

    def __init__(
        self,
        retry: Retry,
        server: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """None yet.

        Args:
            retry: for how long.
            server: for messages.
            clock: in seconds.
            jitter: 0..1: clients that were lost together must not come back together.
        """
        self._retry = retry
        self._server = server
        self._clock, self._jitter = clock, jitter
        self._first_failed_at = 0.0
        self.count = 0  # calls that failed in a row
        self.has_met_server = False

    def succeed(self) -> None:
        """Counts from 0 again."""
        self.count = 0

    def fail(self, failure: Failure, *, was_accepted: bool) -> float:
        """Seconds to wait before the next call.

        Args:
            failure: of the call.
            was_accepted: the server had begun to serve it.

        Raises:
            CallError: if there is to be none.
        """
        now = self._clock()
        if self.count == 0:
            self._first_failed_at = now
        self.has_met_server |= was_accepted or bool(failure.reason)
        limit_s = self._limit_s(failure, was_accepted)
        if limit_s == 0 or self._retry.max_attempts == 0:
            raise self._error(failure, "")
        waited_s = now - self._first_failed_at
        if waited_s >= limit_s or self.count >= self._retry.max_attempts:
            raise self._error(failure, f" and did not serve in {self.count} more attempts ({waited_s:.1f} s)")
        delay_s = min(self._retry.max_delay_s, self._retry.first_delay_s * GROWTH**self.count)
        self.count += 1
        delay_s = max(failure.retry_after_s, delay_s) * (1 - self._jitter() / 2)
        return min(delay_s, limit_s - waited_s)

    def _limit_s(self, failure: Failure, was_accepted: bool) -> float:
        """For how long failures like this one are borne; 0 is not at all."""
        match failure.code:
            case grpc.StatusCode.UNAVAILABLE if failure.is_handshake and not self.has_met_server:
                return 0.0  # of a server that was met it may be a certificate that is just being renewed
            case grpc.StatusCode.UNAVAILABLE:
                return self._retry.outage_s if self.has_met_server else self._retry.connect_s
            case grpc.StatusCode.INTERNAL | grpc.StatusCode.CANCELLED if not failure.reason:
                # of the transport, or a crash; what flowseg itself ends so it means
                return self._retry.outage_s
            case grpc.StatusCode.RESOURCE_EXHAUSTED if failure.asks_to_retry and not was_accepted:
                return self._retry.patience_s
            case _:
                return 0.0

    def _error(self, failure: Failure, more: str) -> CallError:
        if failure.code == grpc.StatusCode.UNAVAILABLE and not self.has_met_server:
            return no_server(self._server, failure)
        return failure.error(more)
