"""The page a backtest leaves behind: one HTML file, Chinese and English, with the plots drawn into it."""
