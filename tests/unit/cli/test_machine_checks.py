"""What the doctor says of a machine."""

import socket

import pytest

from app.cli.exits import Exit
from app.cli.finding import Finding, Health, away, exit_of, well
from app.cli.machine_checks import (
    check_disk,
    check_fsync,
    check_locale,
    check_machine,
    check_open_files,
    check_port,
    check_python,
    nearest_folder,
)

GIB = 1024**3
WARNED = Finding("disk", Health.WARN, "little", "free some")
WRONG = Finding("redis", Health.FAIL, "everysec", "set it")
AWAY = away("ledger", "silent", "start it")


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], Exit.DONE),
        ([well("python", "3.11"), WARNED], Exit.DONE),
        ([WARNED, WRONG], Exit.FAILED),
        ([WRONG, AWAY], Exit.UNREACHABLE),
    ],
)
def test_what_is_away_outweighs_what_is_wrong(findings, code):
    assert exit_of(findings) is code


def test_a_fault_has_a_fix():
    with pytest.raises(AssertionError):
        Finding("disk", Health.FAIL, "full")


@pytest.mark.parametrize(
    ("finding", "health"),
    [
        (check_python((3, 11, 0)), Health.OK),
        (check_python((3, 10, 9)), Health.FAIL),
        (check_open_files(4_096), Health.OK),
        (check_open_files(1_024), Health.WARN),
    ],
)
def test_versions_and_limits_are_compared(finding, health):
    assert finding.health is health


@pytest.mark.parametrize(
    ("free", "health"), [(6 * GIB, Health.OK), (GIB, Health.WARN), (GIB // 4, Health.FAIL)]
)
def test_a_small_disk_is_warned_of_and_a_full_one_refused(tmp_path, free, health):
    assert check_disk(tmp_path, free).health is health


def test_a_sync_is_measured(tmp_path):
    assert " ms in " in check_fsync(tmp_path).found


def test_a_folder_that_is_gone_cannot_be_written(tmp_path):
    assert check_fsync(tmp_path / "gone").health is Health.FAIL


def test_a_taken_port_is_told():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        finding = check_port(listener.getsockname()[1], "--port")
    assert (finding.health, finding.found) == (Health.WARN, "taken")


def test_a_data_directory_to_come_is_judged_by_the_folder_above(tmp_path):
    assert nearest_folder(tmp_path / "not" / "yet") == tmp_path


def test_the_ports_of_a_running_service_are_rightly_taken(tmp_path):
    found = [finding.what for finding in check_machine(tmp_path, runs=True)]
    assert not [what for what in found if what.startswith("port")]
    assert "fsync" in found


def test_asking_for_a_locale_twice_says_the_same():
    assert check_locale() == check_locale()
