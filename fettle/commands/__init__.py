"""One module per verb of the command line.

Each has `add(verbs)`, which declares the verb and its options with argparse and sets `run` as its default, and
`run(args, settings) -> int`, which does it and returns the exit code. `fettle/cli.py` lists the modules.
"""
