import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from merit.model.trail import SignedAnchor, is_signed, signed_part
from merit.ports.signer import SignerUnavailable
from merit.storage.key_file import KeyFile, read_public_key


def test_a_key_is_made_once_and_signs(tmp_path):
    path = tmp_path / "made" / "key"
    key = KeyFile(path)
    assert not path.exists()
    signature = key.sign(b"data")
    assert len(key.public_key) == 32
    assert len(signature) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    again = KeyFile(path, make=False)
    assert again.public_key == key.public_key
    assert again.sign(b"data") == signature
    assert [found.name for found in path.parent.iterdir()] == ["key"]


def test_a_signature_is_of_one_key_and_one_text(tmp_path):
    key, other = KeyFile(tmp_path / "one"), KeyFile(tmp_path / "other")
    good = SignedAnchor(b"data", key.sign(signed_part(b"data")), key.public_key)
    assert is_signed(good)
    for bad in (
        SignedAnchor(b"date", good.signature, good.key),
        SignedAnchor(b"data", other.sign(signed_part(b"data")), good.key),
        SignedAnchor(b"data", good.signature, other.public_key),
        SignedAnchor(b"data", good.signature[:-1], good.key),
        SignedAnchor(b"data", good.signature, good.key[:-1]),
        SignedAnchor(b"data", b"", b""),
    ):
        assert not is_signed(bad)


def test_of_several_at_once_all_get_the_same(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: KeyFile(tmp_path / "key").public_key, range(8)))
    assert found == {KeyFile(tmp_path / "key", make=False).public_key}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_missing_one_is_named(tmp_path):
    with pytest.raises(SignerUnavailable, match="there is no key"):
        KeyFile(tmp_path / "key", make=False).sign(b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(SignerUnavailable, match=f"{path} is no private key"):
        KeyFile(path).sign(b"")
    assert path.read_bytes() == content


def test_a_key_that_others_can_read_is_not_used(tmp_path):
    path = tmp_path / "key"
    KeyFile(path).sign(b"")
    path.chmod(0o640)
    with pytest.raises(SignerUnavailable, match="chmod 600"):
        KeyFile(path).sign(b"")


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SignerUnavailable, match="check permissions"):
        KeyFile(tmp_path / "file" / "key").sign(b"")


def test_a_public_key_is_read_in_every_form(tmp_path):
    path = tmp_path / "key"
    public_key = KeyFile(path).public_key
    assert read_public_key(f" {public_key.hex()}\n") == public_key
    assert read_public_key(path.read_text()) == public_key
    code = (
        "import sys; from cryptography.hazmat.primitives import serialization as s\n"
        "key = s.load_pem_private_key(open(sys.argv[1], 'rb').read(), None).public_key()\n"
        "print(key.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode())"
    )
    pem = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert read_public_key(pem) == public_key


def test_what_is_no_public_key_is_refused():
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    other = X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for text in ("", "x" * 64, os.urandom(31).hex(), "-----BEGIN PUBLIC KEY-----\nnone\n", other.decode(), "é" * 64):
        with pytest.raises(ValueError, match=r"key"):
            read_public_key(text)
