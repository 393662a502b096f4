"""Requests whose bytes are no message of the schema: the client's mistake, which gRPC itself would call UNKNOWN."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from serving.errors import InvalidRequestError
from serving.statuses import abort

# Any: of whichever messages
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], "Awaitable[Handler | None]"]


def undecodable() -> InvalidRequestError:
    """What such a request is refused with."""
    return InvalidRequestError("message", "its bytes do not read as a message of the schema: generate the client anew")


class UndecodableInterceptor(grpc.aio.ServerInterceptor):
    """Refuses such requests of unary calls. In a stream, reading raises DecodeError, and who reads must refuse them."""

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a call, which sees no request that could not be decoded."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler.request_deserializer is None:
            return handler
        decode, answer = handler.request_deserializer, handler.unary_unary

        def decode_or_tell(encoded: bytes) -> Message | DecodeError:
            try:
                message: Message = decode(encoded)
            except DecodeError as error:
                return error
            return message

        async def answer_message(request: Message | DecodeError, context: Any) -> Any:  # Any: a context of grpc.aio
            if isinstance(request, DecodeError):
                await abort(context, undecodable())
            return await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer_message,
            request_deserializer=decode_or_tell,
            response_serializer=handler.response_serializer,
        )
