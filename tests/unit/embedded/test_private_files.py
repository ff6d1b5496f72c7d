import base64
import stat

import pytest

from app.embedded.errors import NotRunning
from app.embedded.private_files import read_private, write_private
from app.embedded.run_file import read_run_file
from app.embedded.run_secrets import RunSecrets, keep_secrets
from app.embedded.store_notes import StoreNotes, read_notes, write_notes


def test_what_was_written_is_read__by_its_owner_alone(tmp_path):
    path = tmp_path / "notes.json"
    notes = StoreNotes(valkey_port=20_001)
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, notes)
    assert read_private(path, StoreNotes) == notes
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.json"]


def test_a_file_that_is_not_there_is_none(tmp_path):
    assert read_private(tmp_path / "none", StoreNotes) is None


def test_notes_are_fresh_until_they_are_written(tmp_path):
    first, second = read_notes(tmp_path), read_notes(tmp_path)
    assert first.postgres_password != second.postgres_password
    write_notes(tmp_path, first)
    assert read_notes(tmp_path) == first


def test_secrets_are_made_once_and_are_long_enough(tmp_path):
    kept = keep_secrets(tmp_path)
    assert keep_secrets(tmp_path) == kept
    assert len(bytes.fromhex(kept.order_id_key)) == 16
    assert len(base64.urlsafe_b64decode(kept.auth_key.key + "=")) == 32
    assert RunSecrets() != kept


def test_a_directory_without_run_json_says_how_to_start(tmp_path):
    with pytest.raises(NotRunning, match="doorbuster up"):
        read_run_file(tmp_path)
