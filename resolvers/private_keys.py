"""SSH private keys: generated, or read from the input of a client.  Pure; slow if there is a passphrase to try.

No error repeats any of the input, neither in its message nor in the exception that caused it.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from db.encryption import Secret
from runner.ssh import keys

MAX_PRIVATE_KEY = 16 * 1024  # bytes; enough for RSA with 16384 bits
MAX_PASSPHRASE = 1024  # bytes
MIN_RSA = 2048  # bits; the minimum that servers accept
CURVES = (SECP256R1, SECP384R1, SECP521R1)  # that OpenSSH supports

_Usable = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


class Unusable(Exception):
    """The input is not a key for logging in; the message is what is wrong with `argument`, to be put after its name."""

    def __init__(self, argument: str, code: str, what: str) -> None:
        super().__init__(what)
        self.argument = argument
        self.code = code


@dataclass(frozen=True)
class PrivateKey:
    """A key in the form in which it is stored: `text` is in OpenSSH's format, without a passphrase."""

    text: Secret
    public: str  # type and base64, as in authorized_keys
    fingerprint: str  # SHA256:…


def generate() -> PrivateKey:
    """Return a new Ed25519 key, the default type of ssh-keygen."""
    return _stored(Ed25519PrivateKey.generate())


def read(text: Secret, passphrase: Secret | None) -> PrivateKey:
    """Return the key in `text`, in OpenSSH's format or PEM, decrypted with the passphrase.  Raises: Unusable."""
    key = _load(text.reveal().encode(), passphrase.reveal().encode() if passphrase is not None else b"")
    if isinstance(key, RSAPrivateKey) and key.key_size < MIN_RSA:
        raise Unusable("private_key", "TOO_SHORT", f"must have at least {MIN_RSA} bits")
    if isinstance(key, EllipticCurvePrivateKey) and not isinstance(key.curve, CURVES):
        raise _unsupported()
    if not isinstance(key, _Usable):
        raise _unsupported()
    return _stored(key)


def _load(data: bytes, passphrase: bytes) -> object:
    load = load_ssh_private_key if data.lstrip().startswith(keys.OPENSSH_HEADER) else load_pem_private_key
    try:
        key = load(data, password=None)
    except TypeError:  # raised by cryptography for a key with a passphrase
        pass
    except UnsupportedAlgorithm:
        raise _unsupported() from None
    except (ValueError, NotImplementedError):
        raise Unusable("private_key", "PRIVATE_KEY", "must be a private key in OpenSSH's format or PEM") from None
    else:
        if passphrase:
            raise Unusable("passphrase", "NEEDLESS", "must not be given for a private key that has none")
        return key
    if not passphrase:
        raise Unusable("passphrase", "REQUIRED", "is required: the private key is protected by one")
    try:
        return load(data, password=passphrase)
    except UnsupportedAlgorithm:
        raise _unsupported() from None
    except (ValueError, TypeError, NotImplementedError, InvalidTag):
        raise Unusable("passphrase", "PASSPHRASE", "does not decrypt the private key") from None


def _unsupported() -> Unusable:
    kinds = "Ed25519, RSA, or ECDSA on a NIST curve"
    return Unusable("private_key", "UNSUPPORTED", f"has an unsupported type: it must be {kinds}")


def _stored(key: _Usable) -> PrivateKey:
    text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return PrivateKey(Secret(text), public, keys.fingerprint(f"key {public}"))
