"""Grafana's half: the pages as dashboard JSON, the files that provision them, and the client that does it by API.

    pages ─▶ render ─▶ dashboards/*.json      (committed; a test compares them with what the pages give now)
                  └──▶ client ─▶ Grafana      (fettle provision, where FETTLE_GRAFANA_URL is set)

Knows Grafana 11 to 13 by its classic dashboard schema; knows no panel of its own.
"""
