"""
Whether a certificate was issued, in steps, by one of the roots we were given; pure.

cryptography's own path builder checks the rules of the web's certificates, which
want a host name; these certificates name companies. So the steps are taken here:
signature, validity, and the right to issue, from leaf to root.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

DEPTH_MAX: Final = 4  # leaf, two authorities, root
KEY_BITS_MIN: Final = 2_048
UNPARSABLE: Final = (ValueError, TypeError)  # what cryptography raises for a broken name or date


def rsa_key(certificate: x509.Certificate) -> RSAPublicKey:
    """
    Return a certificate's public key.

    Raises:
        ValueError: it is not an RSA key of 2048 bits or more.
    """
    try:
        key = certificate.public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, RSAPublicKey) or key.key_size < KEY_BITS_MIN:
        message = "not an RSA key of 2048 bits or more"
        raise ValueError(message)
    return key


def is_issued_by(
    leaf: x509.Certificate,
    roots: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    now: datetime,
) -> bool:
    """
    Whether a chain of valid certificates leads from `leaf` to a root.

    Args:
        leaf: the certificate in question; it need not be allowed to issue.
        roots: trusted because we were given them.
        authorities: 0..n that may stand between; each must be issued itself.
        now: aware.
    """
    try:
        return _is_valid(leaf, now) and _is_reached(leaf, roots, authorities, now, DEPTH_MAX - 1)
    except UNPARSABLE:  # the parts of a certificate are parsed only when they are asked for
        return False


def _is_reached(
    certificate: x509.Certificate,
    roots: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    now: datetime,
    steps: int,
) -> bool:
    if steps < 1:
        return False
    if any(_is_step(certificate, root, now) for root in roots):
        return True
    return any(
        _is_step(certificate, authority, now)
        and _is_reached(authority, roots, authorities, now, steps - 1)
        for authority in authorities
        if authority != certificate
    )


def _is_step(certificate: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    if certificate.issuer != issuer.subject or not _may_issue(issuer):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return _is_valid(issuer, now)


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        extensions = certificate.extensions
        is_authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (
        ValueError,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.UnsupportedGeneralNameType,
    ):
        return False
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return is_authority
    return is_authority and usage.key_cert_sign
