"""
Keys and secrets of a merchant account, read out of its document.

An account document declares its fields by these types, and reading the document
loads the keys: a malformed one is a mistake of that field, told as a sentence
and without a byte of what it said. A value is the text itself or `file:` and a
path to it: PEM, or the bare base64 that some consoles hand out. Nothing of a
secret is in any repr.

    SigningKey      ours, private: RSA of 2048 bits or more, or an elliptic curve
    VerifyingKey    theirs, public: out of a public key or a certificate
    CertificateText one certificate, with its serial and its key
    SecretText      a shared secret

Several live keys are a mapping or a list of these: the first one signs, every
one verifies, so an old and a new key hold together while one replaces the other.
"""

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

RSA_BITS_MIN: Final = 2_048
FILE_MARK: Final = "file:"
FILE_BYTES_MAX: Final = 1_048_576

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey
PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey
_QUOTED: Final = re.compile(r"'[^']*'")

Account = TypeVar("Account", bound=msgspec.Struct)


class SigningKey:
    """A private key of ours."""

    def __init__(self, key: PrivateKey) -> None:
        self.key = key

    def __repr__(self) -> str:
        return "SigningKey()"

    @property
    def rsa(self) -> RSAPrivateKey:
        """The key, where a protocol knows RSA alone; ValueError for another."""
        if not isinstance(self.key, RSAPrivateKey):
            message = "it is not an RSA key"
            raise ValueError(message)  # noqa: TRY004  the document's value is wrong, not the type
        return self.key


class VerifyingKey:
    """A public key of theirs."""

    def __init__(self, key: PublicKey) -> None:
        self.key = key

    def __repr__(self) -> str:
        return "VerifyingKey()"

    @property
    def rsa(self) -> RSAPublicKey:
        """The key, where a protocol knows RSA alone; ValueError for another."""
        if not isinstance(self.key, RSAPublicKey):
            message = "it is not an RSA key"
            raise ValueError(message)  # noqa: TRY004  the document's value is wrong, not the type
        return self.key


class CertificateText:
    """One or more certificates in the order they were written; the first one is meant."""

    def __init__(self, chain: tuple[x509.Certificate, ...]) -> None:
        assert chain
        self.chain = chain

    def __repr__(self) -> str:
        return f"CertificateText(serial={self.serial!r})"

    @property
    def first(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def serial(self) -> str:
        """Its serial number as upper-case hex."""
        return f"{self.first.serial_number:X}"

    @property
    def key(self) -> VerifyingKey:
        return _checked_public(self.first.public_key())


class SecretText:
    """A secret that both sides know."""

    def __init__(self, secret: bytes) -> None:
        assert secret
        self.secret = secret

    def __repr__(self) -> str:
        return "SecretText()"


def read_account(
    document: Mapping[str, object], type_: type[Account], where: str, mistakes: list[str]
) -> Account | None:
    """
    Read one account document; note every mistake, and go on.

    Args:
        document: as JSON or TOML told it.
        type_: what the provider's package declares, fields of this module's types
            among them; unknown fields are mistakes.
        where: the setting and the place in it, to begin each sentence with.
        mistakes: gathers the sentences; no value is ever in them.

    Returns:
        None when there was a mistake.
    """
    before = len(mistakes)
    declared = {one.name: one for one in msgspec.structs.fields(type_)}
    mistakes += [f"{where}.{name} is not a field" for name in sorted(set(document) - set(declared))]
    values: dict[str, object] = {}
    for name, one in declared.items():
        if name in document:
            values[name] = _convert(document[name], one.type, f"{where}.{name}", mistakes)
        elif one.required:
            mistakes.append(f"{where}.{name} is missing")
    if len(mistakes) > before:
        return None
    try:
        return type_(**values)
    except (ValueError, AssertionError) as error:  # rules between fields
        mistakes.append(f"{where}: {error or 'two of its fields contradict each other'}")
        return None


def decode_key(type_: type[Any], value: object) -> object:
    """
    Read a field of this module's types: the hook to decode a document with.

    Raises:
        ValueError: the sentence; it never holds the value.
    """
    read = _READERS.get(type_)
    if read is None:
        raise NotImplementedError(type_)
    if not isinstance(value, str) or not value:
        message = "it is empty, or no text"
        raise ValueError(message)
    return read(_text_of(value))


def read_signing_key(text: str) -> SigningKey:
    """
    Read an unencrypted private key: PEM, or the base64 of PKCS#8 or PKCS#1.

    Raises:
        ValueError: it is none, or too short.
    """
    try:
        if _is_pem(text):
            key = load_pem_private_key(text.encode(), password=None)
        else:
            key = load_der_private_key(_unarmoured(text), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = "it is not an unencrypted private key in PEM or base64"
        raise ValueError(message) from error
    if isinstance(key, RSAPrivateKey):
        _check_bits(key.key_size)
    elif not isinstance(key, EllipticCurvePrivateKey):
        message = "it is neither an RSA key nor one of an elliptic curve"
        raise ValueError(message)  # noqa: TRY004  as above
    return SigningKey(key)


def read_verifying_key(text: str) -> VerifyingKey:
    """
    Read a public key, or the key of a certificate: PEM, or the base64 of the key.

    Raises:
        ValueError: it is none, or too short.
    """
    if "BEGIN CERTIFICATE" in text:
        return read_certificate(text).key
    try:
        if _is_pem(text):
            key = load_pem_public_key(text.encode())
        else:
            key = load_der_public_key(_unarmoured(text))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = "it is not a public key in PEM or base64"
        raise ValueError(message) from error
    return _checked_public(key)


def read_certificate(text: str) -> CertificateText:
    """
    Read one or more certificates in PEM.

    Raises:
        ValueError: there is none, or one is malformed.
    """
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except (ValueError, x509.InvalidVersion) as error:
        message = "it is not a certificate in PEM"
        raise ValueError(message) from error
    return CertificateText(tuple(chain))


def read_secret(text: str) -> SecretText:
    """Read a secret as its UTF-8 bytes; the newline that ends a file is not part of it."""
    return SecretText(text.rstrip("\r\n").encode())


_READERS: Final[Mapping[type[object], Callable[[str], object]]] = {
    SigningKey: read_signing_key,
    VerifyingKey: read_verifying_key,
    CertificateText: read_certificate,
    SecretText: read_secret,
}


def _convert(value: object, kind: object, where: str, mistakes: list[str]) -> object:
    """Read one field; what is wrong is told by its place within the field, never by its value."""
    try:
        return msgspec.convert(value, kind, dec_hook=decode_key)
    except msgspec.ValidationError as error:
        sentence, _, place = str(error).partition(" - at `$")
        mistakes.append(f"{where}{place.rstrip('`')}: {_without_value(sentence)}")
        return None


def _without_value(sentence: str) -> str:
    """Cut what msgspec quotes of the input: an unknown enum value, a key of a mapping."""
    return _QUOTED.sub("of this value", sentence)


def _text_of(value: str) -> str:
    if not value.startswith(FILE_MARK):
        return value
    path = Path(value.removeprefix(FILE_MARK))
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        message = f"the file it names cannot be read ({type(error).__name__})"
        raise ValueError(message) from error
    if not text.strip() or len(text) > FILE_BYTES_MAX:
        message = "the file it names is empty or too long"
        raise ValueError(message)
    return text


def _is_pem(text: str) -> bool:
    return "-----BEGIN" in text


def _unarmoured(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)


def _checked_public(key: object) -> VerifyingKey:
    if isinstance(key, RSAPublicKey):
        _check_bits(key.key_size)
        return VerifyingKey(key)
    if isinstance(key, EllipticCurvePublicKey):
        return VerifyingKey(key)
    message = "it is neither an RSA key nor one of an elliptic curve"
    raise ValueError(message)


def _check_bits(bits: int) -> None:
    if bits < RSA_BITS_MIN:
        message = f"an RSA key of less than {RSA_BITS_MIN} bits is not safe"
        raise ValueError(message)
