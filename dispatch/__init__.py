r"""Who goes: for each ticket that waits, the one engineer who may do the job and is best placed to.

Owns assignments, offers and the decisions behind them. Knows tickets through `workorders.api`; must not know detection,
ingestion or the boards.

    ticket waits --eligible?--> candidates --score--> offer --accepted--> checked in --result--> judged by the customer
                     |                          \--refused or expired--> the next best, at most three times
                     \--nobody--> back to the supervisor, with what would have to change
"""
