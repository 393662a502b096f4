"""Who may call: the clients of a token file, and what each of them may do.

The file is JSON, and holds no token, only their SHA-256. `python -m serving.tokens` writes it:

    {"clients": [{"name": "gate-7", "roles": ["stream"], "token_sha256": ["9f86d0..."], "frames_per_s": 60}]}

A token is 32 random bytes, so a plain hash is enough: there is no dictionary to try.
"""

import hashlib
import hmac
import logging
import math
import os
import stat
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.bundle import NAME_PATTERN
from serving.errors import PermissionDeniedError, UnauthenticatedError
from serving.quotas import Account, Quota

logger = logging.getLogger(__name__)

Role = Literal["stream", "admin", "monitor"]
MAX_FILE_BYTES = 4_000_000
MAX_TOKEN_CHARACTERS = 256  # that are looked at
SCHEME = "bearer "

_Positive = Annotated[float, Field(gt=0)]


class TokenFileError(ValueError):
    """A token file that cannot be used. The message is one sentence for the operator, without what is in the file."""


class ClientEntry(BaseModel):
    """A client in the file. What is left out of its quota is bounded by the server's limits alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=NAME_PATTERN)
    roles: tuple[Role, ...]
    # several while a token is replaced by another one
    token_sha256: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(min_length=1)
    max_streams: Annotated[float, Field(ge=1)] = math.inf
    frames_per_s: _Positive = math.inf
    pixels_per_s: _Positive = math.inf
    max_frame_mb: _Positive = math.inf
    max_frame_megapixels: _Positive = math.inf
    idle_timeout_s: _Positive = math.inf

    def quota(self) -> Quota:
        """What the client may use."""
        return Quota(**self.model_dump(exclude={"name", "roles", "token_sha256"}))


class TokenFile(BaseModel):
    """All that is in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    clients: tuple[ClientEntry, ...]


def hash_token(token: str) -> str:
    """The SHA-256 of a token, in hexadecimal digits."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_token_file(path: Path) -> TokenFile:
    """Reads and checks a token file.

    Raises:
        TokenFileError: with one sentence that says what is wrong.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise TokenFileError(f"the token file {path} cannot be read: {error.strerror}") from error
    if mode & stat.S_IWOTH:
        raise TokenFileError(f"everybody on this machine can write to the token file {path}: chmod it to 600")
    if len(content) > MAX_FILE_BYTES:
        raise TokenFileError(f"the token file {path} has more than {MAX_FILE_BYTES} bytes: is it another file?")
    try:
        token_file = TokenFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        # no cause: pydantic's own exception knows what is in the file
        raise TokenFileError(f"the token file {path} is not valid at {where}: {first['msg']}") from None
    names = [entry.name for entry in token_file.clients]
    hashes = [each for entry in token_file.clients for each in entry.token_sha256]
    for what, values in (("name", names), ("token", hashes)):
        if len(set(values)) < len(values):
            raise TokenFileError(f"the token file {path} has the same {what} twice: each client has its own")
    return token_file


class Caller(NamedTuple):
    """Who makes a call."""

    account: Account
    roles: frozenset[Role]
    token_sha256: str  # by which it was known; empty where nobody is asked

    def check(self, allowed: frozenset[Role]) -> None:
        """Whether it has one of the roles.

        Raises:
            PermissionDeniedError: if not.
        """
        if allowed.isdisjoint(self.roles):
            wanted = " or ".join(sorted(allowed))
            raise PermissionDeniedError(f"the client {self.account.client} has not the role for this: {wanted}")


class Clients:
    """The clients of a file, which may change. For the event loop's thread alone."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            TokenFileError: if it cannot be used.
        """
        self._path = path
        self._accounts: dict[str, Account] = {}
        self._callers: dict[str, Caller] = {}  # by the SHA-256 of their tokens
        self._take(read_token_file(path))

    def reload(self) -> None:
        """Reads the file again; if it cannot be used, what was known stays."""
        try:
            self._take(read_token_file(self._path))
        except TokenFileError as error:
            logger.warning("tokens are not reloaded: %s", error)
        else:
            logger.info("tokens are reloaded: %d clients", len(self._accounts))

    def _take(self, token_file: TokenFile) -> None:
        accounts, callers = {}, {}
        for entry in token_file.clients:
            account = self._accounts.get(entry.name) or Account(entry.name, entry.quota())
            if account.quota != entry.quota():
                account.follow(entry.quota())
            accounts[entry.name] = account
            for token_sha256 in entry.token_sha256:
                callers[token_sha256] = Caller(account, frozenset(entry.roles), token_sha256)
        self._accounts, self._callers = accounts, callers

    def identify(self, authorization: str | None) -> Caller:
        """Who sent this `authorization` header; None is none.

        Raises:
            UnauthenticatedError: if there is no token in it, or none that is known.
        """
        if authorization is None:
            raise UnauthenticatedError("this server wants a token: send 'authorization: Bearer TOKEN'")
        scheme, token = authorization[: len(SCHEME)], authorization[len(SCHEME) :].strip()
        if scheme.lower() != SCHEME or not token or len(token) > MAX_TOKEN_CHARACTERS:
            raise UnauthenticatedError("the authorization is no token: send 'authorization: Bearer TOKEN'")
        token_sha256 = hash_token(token)
        found = None
        for known_sha256, caller in self._callers.items():  # all of them: how long it takes must not tell which fits
            if hmac.compare_digest(token_sha256, known_sha256):
                found = caller
        if found is None:
            raise UnauthenticatedError("the token is not known here: ask the server's operator for one")
        return found

    def still_knows(self, caller: Caller, role: Role) -> bool:
        """Whether a caller that was let in would be let in again."""
        known = self._callers.get(caller.token_sha256)
        return known is not None and known.account is caller.account and role in known.roles
