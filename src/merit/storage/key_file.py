"""The control plane's key in a file: an Ed25519 private key as PEM (PKCS #8), readable by its owner only.

`openssl pkey -in FILE -pubout` shows its public half, as any program that knows the format does.
"""

from __future__ import annotations

import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from merit.ports.signer import SignerUnavailable
from merit.storage.durable_files import make_directory, sync_directory

KEY_BYTES: Final = 32
_FILE_BYTES_MAX: Final = 64 * 1024


class KeyFile:
    """A `Signer` with the key in the file at `path`, which is read when it is first needed.

    If there is none it is made then, durably, unless `make` is False: of several processes that start at once all get the
    same.
    """

    def __init__(self, path: Path, *, make: bool = True) -> None:
        self._path = path
        self._make = make

    @property
    def public_key(self) -> bytes:
        """See `Signer.public_key`. Raises `SignerUnavailable`."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """See `Signer.sign`. Raises `SignerUnavailable`."""
        return self._key.sign(data)

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        path = self._path
        try:
            if self._make and not path.exists():
                make_directory(path.parent)
                _make(path)
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_FILE_BYTES_MAX)
        except FileNotFoundError:
            raise SignerUnavailable(f"{path}: there is no key; the control plane makes it when it starts") from None
        except OSError as error:
            raise SignerUnavailable(f"{path}: {error.strerror}; check permissions and space") from error
        if mode & 0o077:
            raise SignerUnavailable(f"{path}: others than its owner may use the key: chmod 600 {path}")
        try:
            key = load_pem_private_key(data, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SignerUnavailable(f"{path} is no private key: restore it, or move it away for a new one") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SignerUnavailable(f"{path} is not an Ed25519 key: restore the one that was there")
        return key


def _make(path: Path) -> None:
    made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # its owner only
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(made)
            os.fsync(file.fileno())
        # Not renamed: whoever comes second must not replace a key that somebody signs with already.
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink(missing_ok=True)
    sync_directory(path.parent)


def read_public_key(text: str) -> bytes:
    """A public key as people hand it on: 64 hexadecimal digits, or PEM, of either half.

    Raises `ValueError`.
    """
    stripped = text.strip()
    if len(stripped) == 2 * KEY_BYTES:
        try:
            return bytes.fromhex(stripped)
        except ValueError:
            pass
    try:
        data = stripped.encode()
        key = load_pem_private_key(data, None) if "PRIVATE KEY" in stripped else load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no public key: neither {2 * KEY_BYTES} hexadecimal digits nor PEM") from error
    if isinstance(key, Ed25519PrivateKey):
        key = key.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("a key of another kind: it must be an Ed25519 key")
    return key.public_bytes_raw()
