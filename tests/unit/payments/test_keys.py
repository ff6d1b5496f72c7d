"""Account documents: keys are loaded as they are read, and no mistake tells a value."""

import base64
import datetime as dt

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.payments.providers.keys import (
    CertificateText,
    SecretText,
    SigningKey,
    VerifyingKey,
    read_account,
)


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    private_key: SigningKey
    public_keys: dict[str, VerifyingKey]
    secrets: tuple[SecretText, ...] = ()
    certificate: CertificateText | None = None
    port: int = 1

    def __post_init__(self) -> None:
        if self.port > 65_535:
            message = "port is out of reach"
            raise ValueError(message)


KEY = rsa.generate_private_key(65_537, 2_048)
SHORT = rsa.generate_private_key(65_537, 1_024)  # noqa: S505  to be refused
CURVE = ec.generate_private_key(ec.SECP256R1())
OTHER = ed25519.Ed25519PrivateKey.generate()


def private_text(key, encoding=Encoding.PEM, encryption=None) -> str:
    told = key.private_bytes(encoding, PrivateFormat.PKCS8, encryption or NoEncryption())
    return told.decode() if encoding is Encoding.PEM else base64.b64encode(told).decode()


def public_text(key, encoding=Encoding.PEM) -> str:
    told = key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return told.decode() if encoding is Encoding.PEM else base64.b64encode(told).decode()


def certificate_text(key) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0xABC123)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, SHA256())
    )
    return built.public_bytes(Encoding.PEM).decode()


SOUND = {
    "private_key": private_text(KEY),
    "public_keys": {"new": public_text(KEY), "old": public_text(CURVE)},
}


def read(**changes) -> tuple[Account | None, list[str]]:
    mistakes: list[str] = []
    return read_account({**SOUND, **changes}, Account, "ACCOUNTS[0]", mistakes), mistakes


def test_keys_of_every_writing_are_loaded():
    account, mistakes = read(
        public_keys={
            "pem": public_text(KEY),
            "bare": public_text(KEY, Encoding.DER),
            "certificate": certificate_text(KEY),
            "curve": public_text(CURVE),
        },
        secrets=["first", "second"],
        certificate=certificate_text(KEY),
    )
    assert mistakes == []
    assert account is not None
    numbers = KEY.public_key().public_numbers()
    rsa_keys = [account.public_keys[name] for name in ("pem", "bare", "certificate")]
    assert all(key.rsa.public_numbers() == numbers for key in rsa_keys)
    assert [secret.secret for secret in account.secrets] == [b"first", b"second"]
    assert account.certificate is not None
    assert account.certificate.serial == "ABC123"


def test_a_bare_private_key_is_the_same_key():
    account, _ = read(private_key=private_text(KEY, Encoding.DER))
    assert account is not None
    assert account.private_key.rsa.private_numbers() == KEY.private_numbers()


def test_a_key_may_lie_in_a_file(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text(private_text(KEY))
    account, mistakes = read(private_key=f"file:{path}", secrets=[f"file:{path}"])
    assert mistakes == []
    assert account is not None
    assert account.private_key.rsa.key_size == 2_048
    assert not account.secrets[0].secret.endswith(b"\n")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "it is empty, or no text"),
        (7, "it is empty, or no text"),
        ("nonsense", "it is not an unencrypted private key in PEM or base64"),
        (public_text(KEY), "it is not an unencrypted private key in PEM or base64"),
        (
            private_text(KEY, encryption=BestAvailableEncryption(b"word")),
            "it is not an unencrypted private key in PEM or base64",
        ),
        (private_text(SHORT), "an RSA key of less than 2048 bits is not safe"),
        (private_text(OTHER), "it is neither an RSA key nor one of an elliptic curve"),
        ("file:/nowhere/key.pem", "the file it names cannot be read (FileNotFoundError)"),
        ("file:/dev/null", "the file it names is empty or too long"),
    ],
)
def test_a_bad_private_key_is_told_by_its_field(value, why):
    account, mistakes = read(private_key=value)
    assert account is None
    assert mistakes == [f"ACCOUNTS[0].private_key: {why}"]


def test_every_mistake_is_told_at_once_and_none_by_its_value():
    account, mistakes = read(
        private_key="secret-one",
        public_keys={"a": "secret-two"},
        secrets=["good", ""],
        port="secret-three",
        extra="secret-four",
    )
    assert account is None
    assert mistakes == [
        "ACCOUNTS[0].extra is not a field",
        "ACCOUNTS[0].private_key: it is not an unencrypted private key in PEM or base64",
        "ACCOUNTS[0].public_keys[...]: it is not a public key in PEM or base64",
        "ACCOUNTS[0].secrets[1]: it is empty, or no text",
        "ACCOUNTS[0].port: Expected `int`, got `str`",
    ]
    assert "secret-" not in "".join(mistakes)


def test_what_is_missing_is_named():
    mistakes: list[str] = []
    assert read_account({}, Account, "ACCOUNTS[3]", mistakes) is None
    assert mistakes == ["ACCOUNTS[3].private_key is missing", "ACCOUNTS[3].public_keys is missing"]


def test_a_rule_between_fields_is_told_for_the_account():
    _, mistakes = read(port=70_000)
    assert mistakes == ["ACCOUNTS[0]: port is out of reach"]


def test_no_repr_shows_key_material():
    account, _ = read(secrets=["hush"], certificate=certificate_text(KEY))
    shown = repr(account)
    assert "hush" not in shown
    assert "BEGIN" not in shown


def test_a_protocol_that_knows_rsa_alone_refuses_a_curve():
    account, _ = read(private_key=private_text(CURVE))
    assert account is not None
    with pytest.raises(ValueError, match="not an RSA key"):
        _ = account.private_key.rsa
    with pytest.raises(ValueError, match="not an RSA key"):
        _ = account.public_keys["old"].rsa
