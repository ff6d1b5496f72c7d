"""
The other side of the counter: shoppers, the rush, and the checks from outside.

    errors       what can stop a run, or one request of it
    connection   one HTTP/1.1 connection: a request out, its own answer back
    client       a pool of them; requests as bytes, answers as JSON
    tokens       shopper tokens
    answers      what an answer means: won, sold out, duplicate, limit, ...
    history      every call with its times, for the checks
    merchant     the admin routes that a run needs
    plan         which shopper does what, from a seed
    checkout     what becomes of a won order
    shoppers     one shopper from the click to a final order
    rush         a whole run: sales, release, last call, drain
    checks       what must hold afterwards, as equations over what shoppers saw
    verify       asks the service and evaluates all of it
    figures      rates and latencies
    verdict      pass, threshold missed, invariant broken or void
    assess       from a rush that is over to its report
    report       the report, as values and as JSON
    lab          a Locust run, from its sale to its report
    lobby        what the lab and Locust tell each other
    board        what all Locust users of a process share
    bench        benchmarks of single parts
    scenarios    what Locust plays; `locustfile` is its entry

Speaks HTTP only: whatever it says about the service, anybody could see.
"""
