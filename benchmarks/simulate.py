"""How fast a simulated plant is drawn, written into an array, and published.

Protocol: arrays are timed in CPU seconds of one thread, the best of three runs on a healthy fleet of every machine class.
`readings_per_s` counts finished readings (time stamp and value, quantised) at a 10-second period; the baseline draws as
many standard normal numbers with the same numpy in the same run. Publishing starts a Mosquitto of its own; the batch
publisher is driven at --rate, paho at the rate up to which it is the default client, and both as fast as the broker takes
messages. CPU is that of the whole process, drawing included.
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from fettle import clock, embedded
from simulators import api

DAY_US = 86_400_000_000


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks simulate", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rate", type=float, default=10_000.0, help="messages a second to publish")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to publish")
    parser.add_argument("--no-publish", action="store_true", help="arrays only")
    args = parser.parse_args(argv)
    print(__doc__)
    print(
        f"python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    scenario = api.load_scenario("quiet-day")
    print(f"scenario quiet-day, seed {scenario.seed}\n")

    ten_s, normal_s, count = [], [], 0
    for _ in range(args.repeats):
        fleet = api.Fleet(scenario.with_period(10.0), machines=36)
        seconds, count = _generate(fleet, days=5)
        ten_s.append(seconds)
        normal_s.append(_normals(count))
    rate, normal = count / min(ten_s), count / min(normal_s)
    print(f"{'36 machines x 3 signals x 5 days at 10 s':48}{count:>12,} readings {rate:>14,.0f} /s")
    print(
        f"{'baseline: numpy standard_normal':48}{count:>12,} numbers  {normal:>14,.0f} /s   ratio {rate / normal:.3f}"
    )

    minute_s = []
    for _ in range(args.repeats):
        seconds, minute_count = _generate(api.Fleet(scenario, machines=36), days=28)
        minute_s.append(seconds)
    minute_rate = minute_count / min(minute_s)
    print(f"{'36 machines x 3 signals x 28 days at 60 s':48}{minute_count:>12,} readings {minute_rate:>14,.0f} /s")
    days = 36 * 28
    per_1000 = min(minute_s) * 1000 / days
    print(f"{'1,000 healthy machine-days at 60 s':48}{per_1000:>38.2f} s")

    fleet = api.Fleet(scenario)
    began = time.process_time()
    waves = [fleet.waveform(m, scenario.start_us + 9 * 3_600_000_000) for m in fleet.machines for _ in range(5)]
    wave_ms = (time.process_time() - began) / len(waves) * 1000
    print(f"{'1 s of waveform at 25.6 kHz':48}{wave_ms:>38.2f} ms")

    result: dict[str, object] = {
        "readings_per_s": round(rate),
        "numpy_normal_per_s": round(normal),
        "readings_per_s_ratio_vs_numpy_normal": round(rate / normal, 4),
        "readings_per_s_at_60_s": round(minute_rate),
        "healthy_1000_machine_days_s": round(per_1000, 3),
        "waveform_1s_ms": round(wave_ms, 3),
    }
    if not args.no_publish:
        result |= _publish(scenario, rate=args.rate, seconds=args.seconds)
    return result


def _generate(fleet: api.Fleet, *, days: int) -> tuple[float, int]:
    start = fleet.scenario.start_us
    began, count = time.process_time(), 0
    for series in fleet.generate(start, start + days * DAY_US):
        count += series.values.size
    return time.process_time() - began, count


def _normals(count: int) -> float:
    rng = np.random.default_rng(1)
    began = time.process_time()
    for _ in range(0, count, 10_000):
        rng.standard_normal(10_000)
    return time.process_time() - began


def _publish(scenario: api.Scenario, *, rate: float, seconds: float) -> dict[str, object]:
    if embedded.mosquitto_program() is None:
        print("publishing: skipped, no mosquitto on the PATH or in /usr/sbin")
        return {"publish_skipped": "no mosquitto"}
    load = scenario.with_period(1.0)
    machines = api.machines_for_rate(rate, period_us=load.period_us, signals=3, payload_format="fettle")
    out: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, embedded.broker(Path(folder) / "broker") as broker:
        address = api.BrokerAddress(host=broker.host, port=broker.port)
        paho_machines = max(round(machines * api.PAHO_KEEPS_UP / rate), 1)
        for name, client, speed, count, span in (
            ("paced", "batch", 1.0, machines, seconds),
            ("flat out", "batch", 0.0, 120, 600.0),
            ("paced", "paho", 1.0, paho_machines, seconds),
            ("flat out", "paho", 0.0, 120, 120.0),
        ):
            fleet = api.Fleet(load, machines=count)
            start = clock.now_us()
            api.prepare(fleet, start)
            start = clock.now_us()
            cpu = _cpu_s()
            status = api.publish_live(
                fleet,
                address=address,
                start_us=start,
                end_us=start + round(span * 1e6),
                speed=speed,
                client=api.choose_client(client, rate=0),
            )
            cpu = _cpu_s() - cpu
            per_s = status.messages / status.elapsed_s
            print(
                f"{f'published {name}, {client}, QoS 1, {count} machines':48}{status.messages:>12,} messages {per_s:>14,.0f} /s   "
                f"{status.acknowledged:,} acknowledged, worst lag {status.worst_lag_s:.2f} s, {cpu / status.messages * 1e6:.1f} µs CPU each"
            )
            for warning in status.warnings:
                print(f"  warning: {warning}")
            key = ("publish" if client == "batch" else "publish_paho") + ("_paced" if speed else "_flat_out")
            out |= {
                f"{key}_cpu_us": round(cpu / status.messages * 1e6, 1),
                f"{key}_msg_s": round(per_s),
                f"{key}_acknowledged_share": status.acknowledged / max(status.messages, 1),
                f"{key}_worst_lag_s": round(status.worst_lag_s, 3),
            }
            if speed:
                out[f"{key}_asked_msg_s"] = rate if client == "batch" else count * len(load.signals)
    return out


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
