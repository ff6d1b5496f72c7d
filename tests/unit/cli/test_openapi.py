import json

import pytest

from app.cli.openapi import describe
from tests.unit.cli.calls import call


@pytest.mark.parametrize(
    ("arguments", "is_admin", "path"),
    [((), False, "/v1/sales/{sale}/orders"), (("--admin",), True, "/admin/v1/queues")],
)
def test_it_prints_one_document(arguments, is_admin, path):
    done = call("openapi", *arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert path in document["paths"]
    assert document == json.loads(json.dumps(describe(is_admin=is_admin)))


def test_no_listener_tells_of_the_other():
    public, admin = (describe(is_admin=is_admin)["paths"] for is_admin in (False, True))
    assert not public.keys() & admin.keys()
    assert all(path.startswith("/admin/v1/") for path in admin)
