"""`fettle explain`: the evidence of a finding in words, on the terminal."""
