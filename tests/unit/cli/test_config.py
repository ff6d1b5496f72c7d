import json

from tests.unit.cli.calls import call

URL = "redis://admin:very-secret@127.0.0.1:1/0"


def test_settings_are_shown_and_secrets_are_not():
    done = call("config", "show", "--json", DOORBUSTER_REDIS__URL=URL, DOORBUSTER_WEB__PORT="8181")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["DOORBUSTER_WEB__PORT"] == 8181
    assert told["DOORBUSTER_REDIS__URL"] == "<secret>"
    assert "very-secret" not in done.output


def test_every_line_for_people_is_a_variable():
    done = call("config", "show")
    assert done.exit_code == 0
    assert all(line.startswith("DOORBUSTER_") and "=" in line for line in done.stdout.splitlines())


def test_all_mistakes_are_told_at_once():
    done = call("config", "show", DOORBUSTER_WEB__PORT="high", DOORBUSTER_WEB__COLOUR="red")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "DOORBUSTER_WEB__PORT" in done.stderr
    assert "DOORBUSTER_WEB__COLOUR" in done.stderr


def test_the_version_is_one_line_or_one_document():
    plain = call("version").stdout.strip()
    assert json.loads(call("version", "--json").stdout) == {"version": plain}
