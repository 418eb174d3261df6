"""Shows what is known: which machine needs someone, why, and who is on the way.

Owns the panel specification, the built-in board and Grafana's dashboards. Reads `report.*` and nothing else; must not
know how readings are stored, how faults are found or how engineers are chosen.

    pages (panels as data) ─▶ macros ─▶ grafana: dashboards, data source
                                   └──▶ board: data as JSON ─▶ static/: one page, our own charts
"""
