"""Backtests: a stored period or a file through the engine of the live loop, judged against what is known to have failed.

    source (database or file) -> stretches in event time -> Engine.fold -> tickets -> lead, delay, false tickets
"""
