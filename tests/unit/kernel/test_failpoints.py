"""Failpoints do nothing until armed, then once and where they were told to."""

import json

import pytest

from app.kernel.errors import BadConfiguration, Unavailable
from app.kernel.failpoints import CATALOGUE, Act, Failpoint, arm_failpoints, failpoint
from app.settings import read_settings

NAME = "flusher.after_insert"


@pytest.fixture(autouse=True)
def disarmed():
    yield
    arm_failpoints([])


def armed(**more):
    told = json.dumps([{"name": NAME, **more}])
    return {"DOORBUSTER_PROCESS__FAILPOINTS": told, "DOORBUSTER_EMBEDDED": "1"}


def test_a_failpoint_that_is_not_armed_does_nothing():
    for name in CATALOGUE:
        failpoint(name)


def test_a_failpoint_acts_at_the_hit_it_was_told_and_never_again():
    arm_failpoints([Failpoint(name=NAME, act=Act.ERROR, at=2)])
    failpoint(NAME)
    with pytest.raises(Unavailable, match=NAME):
        failpoint(NAME)
    failpoint(NAME)


def test_arming_counts_anew_and_forgets_what_was_armed():
    arm_failpoints([Failpoint(name=NAME, act=Act.ERROR)])
    arm_failpoints([Failpoint(name="flusher.after_lock", act=Act.ERROR)])
    failpoint(NAME)
    with pytest.raises(Unavailable):
        failpoint("flusher.after_lock")


def test_the_setting_names_failpoints():
    settings = read_settings(armed(act="pause", at=3))
    assert settings.process.failpoints == (Failpoint(name=NAME, act=Act.PAUSE, at=3),)
    assert read_settings(armed()).process.failpoints == (Failpoint(name=NAME, act=Act.KILL, at=1),)
    assert read_settings({}).process.failpoints == ()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"act": "explode"}, "explode"),
        ({"at": 0}, "at counts from 1"),
        ({"name": "flusher.lunch"}, "flusher.lunch is no failpoint"),
    ],
)
def test_a_wrong_failpoint_is_refused_with_its_reason(wrong, why):
    with pytest.raises(BadConfiguration, match=why):
        read_settings(armed(**wrong))


def test_failpoints_are_refused_outside_embedded_mode():
    with pytest.raises(BadConfiguration, match="refused outside embedded mode"):
        read_settings({**armed(), "DOORBUSTER_EMBEDDED": "0"})
