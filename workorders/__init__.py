"""Tickets: what is wrong with which machine, in which of six states, and everything that was done about it.

Owns tickets, their events, evidence and requirements, and the life cycle. Must not know detection, ingestion or how an
engineer is chosen: findings and offers reach it as arguments.

    report by a person --intake--> submitted -> pending confirmation -> dispatched -> in progress -> pending acceptance -> closed
    finding ----potential fault---^ (one open ticket per machine and fault family; later evidence is appended)
    every change of state: one row in `ticket_event`, in the same transaction
"""
