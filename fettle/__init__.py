"""The kernel and the composition root.

Owns settings, database access, migrations, wire format and clock at the bottom; the command line and the wiring that
joins the domain packages at the top. The domain packages never import the top.

    commands -> wiring -> domain packages -> db, wire -> settings, model -> clock, errors
"""
