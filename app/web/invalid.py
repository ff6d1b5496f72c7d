"""The one exception of web: a request that was found wrong deep inside its reading."""

from collections.abc import Sequence


class InvalidRequest(Exception):
    """
    The request is malformed; the boundary answers it as a problem.

    Args:
        code: a code of the catalogue.
        fields: what the problem says besides, such as `errors` or `limit_bytes`.
    """

    def __init__(self, *, code: str, **fields: object) -> None:
        self.code = code
        self.fields = fields
        super().__init__(code)


def field_invalid(*, path: str, message: str) -> InvalidRequest:
    """Make the refusal of one field; `path` is its JSON path, such as `$.quantity`."""
    return fields_invalid([(path, message)])


def fields_invalid(errors: Sequence[tuple[str, str]]) -> InvalidRequest:
    """Make the refusal of several fields, each a path and a message."""
    listed = [{"path": path, "message": message} for path, message in errors]
    return InvalidRequest(code="validation_failed", errors=listed)
