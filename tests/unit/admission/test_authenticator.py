"""Both kinds of bearer tokens, read from headers."""

from app.admission.authenticator import TokenAuthenticator
from app.admission.operators import Operators
from app.admission.settings import Algorithm, KeyUse, OperatorToken, TokenKey
from app.admission.tokens import ShopperTokens
from app.kernel.clock import SystemClock

TOKENS = ShopperTokens(
    [TokenKey(kid="a", alg=Algorithm.HS256, key=bytes(32), use=KeyUse.SIGN)],
)
OPERATORS = Operators([OperatorToken(name="ann", scope="operator", token="o" * 20)])
BOTH = TokenAuthenticator(TOKENS, OPERATORS, SystemClock())


def test_each_kind_of_token_opens_its_own_door_only():
    shopper = {"Authorization": "Bearer " + TOKENS.mint("s1", 60, SystemClock().now_ms() / 1000)}
    admin = {"Authorization": "Bearer " + "o" * 20}
    assert (BOTH.shopper(shopper), BOTH.operator(shopper)) == ("s1", None)
    assert BOTH.shopper(admin) is None
    assert BOTH.operator(admin).name == "ann"


def test_no_token_is_nobody():
    assert BOTH.shopper({}) is None
    assert BOTH.operator({}) is None
