"""A device's key: in memory, or in a file that only its owner can read."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Final, Self

from relay.bounded_files import make_directory, open_regular
from relay.chat.accounts.links import key_id
from relay.chat.names import is_handle
from relay.client import arguments
from relay.errors import UsageError
from relay.file_access import open_to_others
from relay.fsync import sync_file
from relay.new_files import unfinished
from relay.paths import given
from relay.wire.device_keys import DeviceKeyError, PrivateDeviceKey, check_public_key
from relay.wire.sealed_seed import (
    NONCE_BYTES,
    SALT_BYTES,
    SealedSeed,
    WrongPassphrase,
    seal,
    unseal,
)

FORMAT: Final = "relay device key, version 1"
FILE_BYTES_MAX: Final = 4096


class PassphraseNeeded(UsageError):
    """The key file has a passphrase, and none was given."""


class DeviceKey:
    """An Ed25519 key that identifies a device of an account. Its repr does not show the secret.

    Give it, or the path of its file, to a client as ``key=``. A key that is only in memory is lost
    with the program, which is useful for tests.
    """

    __slots__ = ("_private", "key_id", "name", "path", "public")

    def __init__(self, seed: bytes, path: Path | None = None, name: str | None = None) -> None:
        """Create the key from a seed.

        Args:
            seed: 32 random bytes.
            path: where it is kept; None: nowhere.
            name: the handle that it was created for; None: not recorded.
        """
        self.name = name
        """The handle that it was created for, if recorded in its file."""
        self._private = PrivateDeviceKey(seed)
        self.public = self._private.public
        """The public key: 32 bytes."""
        self.key_id = key_id(self.public)
        """The id of the device in messages: 16 bytes."""
        self.path = path
        """Its file; None: it is only in memory."""

    @classmethod
    def generate(cls) -> Self:
        """Create a new key, in memory."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: str | None = None) -> Self:
        """Read a key file.

        Args:
            path: of the file.
            passphrase: of the file; None: it has none.

        Raises:
            PassphraseNeeded: the file has one.
            UsageError: the file does not exist, is readable by others, or is not a key file, or the
                passphrase is wrong.
        """
        where = given(path)
        data = _read(where)
        return cls(_seed(where, data, passphrase), where, _name(data))

    def save(
        self,
        path: str | os.PathLike[str],
        passphrase: str | None = None,
        *,
        replace: bool = False,
    ) -> None:
        """Write a key file atomically and durably, with mode 0600.

        Args:
            path: of the file.
            passphrase: to encrypt it with; None: it is protected only by its mode.
            replace: overwrite an existing file; False: there must be none.

        Raises:
            UsageError: it exists, or cannot be written.
        """
        where = given(path)
        content: dict[str, object] = {"format": FORMAT, "public": public_text(self.public)}
        if self.name is not None:
            content["name"] = self.name
        seed = self._private.seed
        if passphrase:
            kept = seal(
                seed, passphrase, secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
            )
            content["scrypt_cost"] = kept.cost
            content |= {name: getattr(kept, name).hex() for name in ("salt", "nonce", "sealed")}
        else:
            content["seed"] = seed.hex()
        data = (json.dumps(content, indent=1) + "\n").encode()
        write_private(where, data, replace=replace)
        self.path = where

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        return self._private.sign(message)

    def paper(self) -> str:
        """Return the secret itself as 52 characters, to be written on paper and kept safe."""
        return base64.b32encode(self._private.seed).decode().rstrip("=").lower()

    @classmethod
    def from_paper(cls, text: str) -> Self:
        """Return the key that was written on paper; blanks and case do not matter.

        Raises:
            UsageError: it is not a key.
        """
        arguments.text("text", text)
        try:
            seed = base64.b32decode("".join(text.split()).replace("-", "").upper() + "====")
        except ValueError:
            seed = b""
        if len(seed) != 32:
            raise UsageError("this is not a recovery key: those have 52 characters of a-z and 2-7")
        return cls(seed)

    def __repr__(self) -> str:
        return f"<DeviceKey {public_text(self.public)}>"


def public_text(public: bytes) -> str:
    """Return a public key as 52 characters of a-z and 2-7."""
    return base64.b32encode(public).decode().rstrip("=").lower()


def public_from_text(text: str) -> bytes:
    """Return the public key that a person typed.

    Raises:
        UsageError: it is not a key.
    """
    try:
        public = base64.b32decode("".join(text.split()).upper() + "====")
        check_public_key(public)
    except (ValueError, DeviceKeyError):
        raise UsageError(
            "this is not a device key: those have 52 characters of a-z and 2-7, as "
            "'relay device request' prints it"
        ) from None
    return public


def contains(path: Path, key: DeviceKey) -> bool:
    """Return True if a file contains this key. It needs no passphrase."""
    try:
        content = json.loads(_read(path))
    except (UsageError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("public") == public_text(key.public)


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file that only this user can read: atomically, durably, over another if ``replace``.

    If the path is a link, its target is replaced: the link stays, and no old key remains.

    Raises:
        UsageError: it exists, or cannot be written.
    """
    with contextlib.suppress(OSError, RuntimeError):  # a loop of links
        path = path.resolve() if replace else path
    if replace and path.exists() and not path.is_file():
        raise UsageError(f"{path} is a device, a pipe, a socket or a directory: not replaced")
    try:
        make_directory(path.parent)
        with unfinished(path) as (partial, file):
            file.write(data)
            file.flush()
            sync_file(file.fileno(), path)
            if os.name == "nt":
                file.close()
            if replace:
                partial.replace(path)
            else:
                publish(partial, path)
        if os.name == "posix":
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                with contextlib.suppress(OSError):  # some file systems do not support it
                    os.fsync(directory)
            finally:
                os.close(directory)
    except FileExistsError:
        raise UsageError(f"key file {path} exists already") from None
    except OSError as error:
        raise UsageError(f"key file {path} cannot be written: {error.strerror or error}") from None


def publish(partial: Path, path: Path) -> None:
    """Give a complete file its name, unless a file has it: FileExistsError.

    The previous name may stay.
    """
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # no hard links here
        if path.exists():
            raise FileExistsError(str(path)) from None
        partial.rename(path)


def _read(path: Path) -> bytes:
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            status = os.fstat(file.fileno())
            if open_to_others(status):
                mode = stat.S_IMODE(status.st_mode)
                raise UsageError(
                    f"key file {path} is open to others (mode {mode:04o}); run: chmod 600 {path}"
                )
            return file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise UsageError(
            f"there is no key file {path}; make one with: relay register --key {path}"
        ) from None
    except OSError as error:
        raise UsageError(f"key file {path} cannot be read: {error.strerror or error}") from None


def _name(data: bytes) -> str | None:
    name = json.loads(data).get("name")
    return name if isinstance(name, str) and is_handle(name) else None


def _seed(path: Path, data: bytes, passphrase: str | None) -> bytes:
    try:
        content = json.loads(data)
        if content["format"] != FORMAT:
            raise UsageError(f"key file {path} is of another version: {content['format']!r}")
        if "seed" in content:
            seed = bytes.fromhex(content["seed"])
        else:
            kept = SealedSeed(
                int(content["scrypt_cost"]),
                *(bytes.fromhex(content[name]) for name in ("salt", "nonce", "sealed")),
            )
            if passphrase is None:
                raise PassphraseNeeded(f"key file {path} needs its passphrase")
            seed = unseal(kept, passphrase)
    except WrongPassphrase as error:
        raise UsageError(f"key file {path}: {error}") from None
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        raise UsageError(f"{path} is not a device key file") from None
    if len(seed) != 32:
        raise UsageError(f"{path} is not a device key file")
    return seed
