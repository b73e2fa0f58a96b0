"""Measurements of the whole product beside what it is compared with: ``coordinator bench``.

One transfer, done in different ways, under the same loads, on the same servers, in one run. Owns
what is held equal between those who are compared, and the promises that the figures are held
against. Refuses to know anything of the daemon's inside; it lives beside the package and not in
it, because it is of no use without a checkout.

    transfers, dataset          the work: who pays whom (pure), and the tables that it is done on
    servers, arena              PostgreSQL, MongoDB and Kafka; databases and topics of one's own
    contenders/                 each way to do a transfer, behind one small protocol
    straight_line/              the protocol without any logic: the limit that we measure against
    traffic, loads              what is under way and how it ended; one client, many, saturation
    meters, measuring           CPU, commits and bytes around a load: one sample
    rounds, variants            everybody once, then everybody again; the coordinator's bad days
    statistics, promises        medians, spreads and ratios (pure)
    results, report, plot       JSON, tables on the terminal, an SVG
"""
