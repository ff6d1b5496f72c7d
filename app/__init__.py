"""
Doorbuster: a flash-sale order service.

The folders are the stages of one purchase, in order; each may import the ones
above it and never the ones below:

    kernel       pure words: errors, ids, money, clock, state machines, loops
    telemetry    logs and metrics
    storage      plumbing to Redis and Postgres; knows no feature
    embedded     Valkey and Postgres from wheels, started and watched
    web          plumbing to HTTP; knows no feature
    sales        1  what is sold, when, to how many
    admission    2  who may try now
    inventory    3  how many are left
    orders       4  one shopper's purchase
    payments     5  the shopper pays
    fulfilment   6  where to, whether, how it travels, what comes back
    settlement   7  who is owed what
    sandbox      the other side of a payment, for demos and tests
    settings     every setting, read once
    wiring       settings -> stores -> stages -> web app or worker
    cli          the command `doorbuster`
"""
