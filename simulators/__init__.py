"""Simulated plants: machines with faults, their readings and the truth about them.

Owns the physics of simulated machines, fault and disturbance models, scenarios, the payload formats a device may send, and
the replay of recorded files. Knows the wire format only: never how readings are ingested, stored or judged.

    scenario (TOML) -> Fleet: machine -> production -> physics -> faults -> sensor faults -> arrays of readings
    arrays -> files (Parquet, CSV), or encoded messages -> broker
    the same scenario -> truth: states, counts, episodes of faults

Everything is random access: a reading depends on the seed, its machine and its instant, never on where generation began.
"""
