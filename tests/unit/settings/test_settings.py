"""Settings: where they come from, and how mistakes are told."""

import pytest

from app.kernel.errors import BadConfiguration
from app.settings import FILE_NAME, SECRET, Settings, describe, read_settings, require


def read(environment=None, folder=None, text=None):
    if text is not None:
        (folder / FILE_NAME).write_text(text, encoding="utf-8")
    return read_settings(environment or {}, folder)


def mistakes_of(folder, environment=None, text=None):
    with pytest.raises(BadConfiguration) as refused:
        read(environment, folder, text)
    return refused.value.fields["settings"].split("; ")


def test_nothing_given_is_every_default(tmp_path):
    assert read(folder=tmp_path) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "found"),
    [
        ("DOORBUSTER_EMBEDDED", "true", lambda s: s.embedded is True),
        ("DOORBUSTER_REDIS__URL", "redis://x", lambda s: s.redis.url == "redis://x"),
        ("DOORBUSTER_WEB__PORT", "9000", lambda s: s.web.port == 9000),
        ("DOORBUSTER_POSTGRES__SHARD_URLS", '["a", "b"]',
         lambda s: s.postgres.shard_urls == ("a", "b")),
        ("DOORBUSTER_POSTGRES__DATABASE_CONNECTIONS_MAX", "3",
         lambda s: s.postgres.database.connections_max == 3),
        ("DOORBUSTER_ORDERS__FLUSHER_ENTRIES_MAX", "7",
         lambda s: s.orders.flusher.entries_max == 7),
        ("DOORBUSTER_INVENTORY__COORDINATOR_RECOVERY_POLL_MS", "5",
         lambda s: s.inventory.coordinator.recovery.poll_ms == 5),
    ],
)  # fmt: skip
def test_a_variable_sets_one_value_and_leaves_the_rest(tmp_path, variable, text, found):
    settings = read({variable: text, "PATH": "/bin"}, tmp_path)

    assert found(settings)
    told = dict(describe(settings, show_secrets=True))
    plain = dict(describe(Settings(), show_secrets=True))
    assert {name for name in told if told[name] != plain[name]} == {variable}


def test_the_file_stands_below_the_environment(tmp_path):
    text = "[web]\nport = 7001\nadmin_port = 7002\n[orders]\nflusher_entries_max = 9\n"
    settings = read({"DOORBUSTER_WEB__PORT": "7003"}, tmp_path, text)

    assert (settings.web.port, settings.web.admin_port) == (7003, 7002)
    assert settings.orders.flusher.entries_max == 9


def test_a_list_stands_in_the_file_as_a_list(tmp_path):
    settings = read(folder=tmp_path, text='[postgres]\nshard_urls = ["a", "b"]\n')

    assert settings.postgres.shard_urls == ("a", "b")


def test_all_mistakes_are_told_at_once(tmp_path):
    environment = {
        "DOORBUSTER_WEB__PORT": "many",
        "DOORBUSTER_POSTGRES__SHARD_URLS": "not json",
        "DOORBUSTER_ORDERS__CLOSER_ORDERS_MAX": "0",
        "DOORBUSTER_ORDERS__FLUSHER_ENTRIS_MAX": "5",
    }
    mistakes = mistakes_of(tmp_path, environment, "[sails]\ncolour = 1\n")

    assert len(mistakes) == 5
    told = " ".join(mistakes)
    assert "DOORBUSTER_WEB__PORT='many'" in told
    assert "DOORBUSTER_POSTGRES__SHARD_URLS" in told
    assert "out of its bounds: DOORBUSTER_ORDERS__CLOSER_ORDERS_MAX" in told
    assert "DOORBUSTER_ORDERS__FLUSHER_ENTRIS_MAX is not a setting" in told
    assert "DOORBUSTER_SAILS__COLOUR is not a setting" in told


def test_a_group_that_is_no_table_is_a_mistake_and_no_crash(tmp_path):
    mistakes = mistakes_of(tmp_path, text='redis = "localhost"\n')

    assert mistakes == ["DOORBUSTER_REDIS is not a setting"]


@pytest.mark.parametrize("text", ["[web", "port == 1", "[web]\nport = \x00"])
def test_a_file_that_is_no_toml_is_named(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(BadConfiguration, match=FILE_NAME):
        read_settings({}, tmp_path)


def test_a_wrong_secret_is_not_told(tmp_path):
    environment = {"DOORBUSTER_POSTGRES__SHARD_URLS": '{"pass": "hunter2"}'}

    assert "hunter2" not in " ".join(mistakes_of(tmp_path, environment))


def test_secrets_are_masked_unless_asked_for(tmp_path):
    given = {
        "DOORBUSTER_REDIS__URL": "redis://:hunter2@host",
        "DOORBUSTER_POSTGRES__SHARD_URLS": '["postgres://u:hunter2@host/x"]',
        "DOORBUSTER_POSTGRES__LEDGER_URL": "postgres://u:hunter2@host/l",
        "DOORBUSTER_ORDERS__ID_KEY": "hunter2" * 5,
        "DOORBUSTER_PAYMENTS__SANDBOX_KEY": "hunter2",
    }
    settings = read(given, tmp_path)
    told = dict(describe(settings))

    assert {told[name] for name in given} == {SECRET}
    assert "hunter2" not in repr(told)
    assert dict(describe(settings, show_secrets=True))["DOORBUSTER_REDIS__URL"].endswith("host")


def test_an_empty_secret_is_seen_to_be_empty():
    assert dict(describe(Settings()))["DOORBUSTER_REDIS__URL"] == ""


def test_secrets_do_not_stand_in_the_repr(tmp_path):
    settings = read({"DOORBUSTER_REDIS__URL": "redis://:hunter2@host"}, tmp_path)

    assert "hunter2" not in repr(settings)


def test_what_a_role_requires_is_named_all_at_once():
    with pytest.raises(BadConfiguration) as refused:
        require(
            Settings(), "DOORBUSTER_REDIS__URL", "DOORBUSTER_WEB__PORT", "DOORBUSTER_ORDERS__ID_KEY"
        )

    assert refused.value.fields["settings"] == (
        "DOORBUSTER_REDIS__URL is not set; DOORBUSTER_ORDERS__ID_KEY is not set"
    )
