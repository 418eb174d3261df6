"""`fettle backtest`: what detection would have said of a stored period or a file."""
