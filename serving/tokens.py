"""Makes a token for a client: `python -m serving.tokens TOKENS CLIENT --roles stream --out gate-7.token`.

The token file TOKENS gets its SHA-256 alone; the token itself goes into a new file that only you can read, and is
nowhere else. Give that file to the client, and tell a running server by SIGHUP. A client that is in the file already
gets another token, beside those it has: take the old one out once the new one is in use.
"""

import contextlib
import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError

from serving.clients import ClientEntry, Role, TokenFile, TokenFileError, hash_token, read_token_file

TOKEN_BYTES = 32
FILE_MODE = 0o600


@dataclass(frozen=True, kw_only=True)
class TokenOptions:
    """Makes a token for a client."""

    # file of a server's --tokens; made if there is none
    tokens: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    # name of the client, for logs and messages: letters, digits, dots, dashes
    client: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CLIENT")]
    out: Path  # new file for the token
    # of a new client: stream segments video, admin loads models and ends streams, monitor reads the figures over HTTP
    roles: tuple[Role, ...] = ("stream",)
    max_streams: int = 0  # of a new client, open at a time; 0 is as many as the server has
    frames_per_s: float = 0.0  # of a new client, of all its streams; 0 is no quota
    pixels_per_s: float = 0.0  # of a new client, of all its streams, in the frames' own size; 0 is no quota


def add_token(token_file: TokenFile, options: TokenOptions, token: str) -> TokenFile:
    """The file with one more token.

    Raises:
        TokenFileError: if the client is no client.
    """
    hashed = hash_token(token)
    others = [entry for entry in token_file.clients if entry.name != options.client]
    known = [entry for entry in token_file.clients if entry.name == options.client]
    quota = {
        name: getattr(options, name)
        for name in ("max_streams", "frames_per_s", "pixels_per_s")
        if getattr(options, name) != 0
    }
    if known:
        if quota or options.roles != TokenOptions.roles:
            raise TokenFileError(f"{options.client} has its roles and quota already: change them in {options.tokens}")
        entry = known[0].model_copy(update={"token_sha256": (*known[0].token_sha256, hashed)})
    else:
        try:
            entry = ClientEntry(name=options.client, roles=options.roles, token_sha256=(hashed,), **quota)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = str(first["loc"][0]).replace("name", "client").replace("_", "-")
            raise TokenFileError(f"{where} is not valid: {first['msg']}") from None
    return TokenFile(clients=(*others, entry))


def write_token_file(path: Path, token_file: TokenFile) -> None:
    """Writes the file, whole or not at all, for its owner alone.

    Raises:
        OSError: if that does not work.
    """
    content = token_file.model_dump_json(indent=2, exclude_defaults=True) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:  # 0600
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)
            raise


def main() -> int:
    """Runs the command."""
    options = tyro.cli(TokenOptions, prog="python -m serving.tokens", description=__doc__)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        token_file = read_token_file(options.tokens) if options.tokens.exists() else TokenFile(clients=())
        extended = add_token(token_file, options, token)
        with open(os.open(options.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w") as file:
            file.write(token + "\n")
        write_token_file(options.tokens, extended)
    except OSError as error:
        sys.stderr.write(f"cannot write {error.filename or options.tokens}: {error.strerror}\n")
        return 2
    except TokenFileError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stderr.write(f"{options.out} holds the token of {options.client}; {options.tokens} holds its SHA-256\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
