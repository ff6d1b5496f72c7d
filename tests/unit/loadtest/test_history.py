import gzip
import stat

import pytest

from loadtest.answers import Outcome
from loadtest.errors import NotAHistory
from loadtest.history import Click, GroupTerms, History, Intent, SaleTerms
from loadtest.plan import Ending

CLICK = Click("s", "ann", "k1", 1.0, 1.1, 1.2, Outcome.WON, "A", "", waited=True, status=201)


def a_history() -> History:
    replay = CLICK._replace(outcome=Outcome.DUPLICATE, planned_at=2.0)
    lost = CLICK._replace(shopper="bob", key="k2", outcome=Outcome.SOLD_OUT, order_id="")
    return History(
        sales={
            "s": SaleTerms("s", 1, 1, 8_880, "CNY"),
            "g": SaleTerms("g", 3, 1, 8_880, "CNY", GroupTerms(3, 30)),
        },
        tokens={"ann": "secret"},
        clicks=[CLICK, replay, lost],
        endings={"A": Ending.PAY},
        begun=3,
    )


def test_a_written_history_reads_the_same_without_its_tokens(tmp_path):
    path = tmp_path / "history.jsonl.gz"
    history = a_history()
    history.write(path)
    history.tokens = {}
    assert History.read(path) == history
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_file_is_not_a_history(tmp_path):
    path = tmp_path / "history.jsonl.gz"
    path.write_bytes(gzip.compress(b'["another file",0,[],{}]\n'))
    with pytest.raises(NotAHistory):
        History.read(path)


def test_an_order_is_accepted_once_however_often_it_is_answered():
    history = a_history()
    assert history.accepted() == {"A": CLICK}
    assert history.ids_by_intent() == {Intent("s", "ann", "k1"): {"A"}}
    assert history.unsettled() == set()
    assert history.counts("s")[Outcome.DUPLICATE] == 1
