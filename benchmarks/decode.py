"""What decoding costs: microseconds of CPU per message and per reading, for each format, beside a bare JSON parse.

Baselines are `json.loads` and `orjson.loads` of the same bytes (for Sparkplug: parsing the protobuf alone), taken in the
same run and alternately, so that the ratios hold on any machine. No sockets, no database: one thread decodes in a loop.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import cbor2
import orjson
from rich.console import Console
from rich.progress import track
from rich.table import Table as Grid

from fettle.wire import encode_reading, encode_signals
from ingest.decode import decode_signals, decode_value
from ingest.decode.sparkplug import Host
from ingest.decode.sparkplug_payload import DataType, OutMetric, Payload, encode
from ingest.topics import Table, load_table, parse_rules

NOW = 1_795_219_200_000_000
MESSAGES = 256
Loop = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """One format: a loop over `MESSAGES` messages, and the loops it is compared with."""

    name: str
    readings: int  # in one message
    size: int  # bytes of one message
    loop: Loop
    baselines: dict[str, Loop]


def over(function: Callable[[bytes], object], payloads: Sequence[bytes]) -> Loop:
    def loop() -> None:
        for payload in payloads:
            function(payload)

    return loop


def json_case(name: str, readings: int, payloads: Sequence[bytes], function: Callable[[bytes], object]) -> Case:
    baselines = {"json": over(json.loads, payloads), "orjson": over(orjson.loads, payloads)}
    return Case(name, readings, len(payloads[0]), over(function, payloads), baselines)


def codec(table: Table, topic: str) -> Callable[[bytes], object]:
    route = table.route(topic)
    assert route is not None
    return lambda payload: route.decode(payload, NOW)


def plain_cases(rng: random.Random, table: Table) -> list[Case]:
    one = [encode_reading(ts_us=NOW + i * 1000, value=rng.uniform(0, 9), unit="mm/s") for i in range(MESSAGES)]
    three = [
        encode_signals(
            ts_us=NOW + i * 1000, values={k: rng.uniform(0, 90) for k in ("vibration", "temperature", "current")}
        )
        for i in range(MESSAGES)
    ]
    umh = [orjson.dumps({"timestamp_ms": NOW // 1000 + i, "value": rng.uniform(0, 9)}) for i in range(MESSAGES)]
    burst = [
        orjson.dumps({"t0": NOW // 1000, "fs": 25_600, "unit": "g", "values": [rng.gauss(0, 1) for _ in range(2048)]})
        for _ in range(4)
    ] * (MESSAGES // 4)
    return [
        json_case("value, fast reader", 1, one, decode_value),
        json_case("value, codec", 1, one, codec(table, "fettle/acme/munich/press-4/temp")),
        json_case("3 signals, fast reader", 3, three, decode_signals),
        json_case("3 signals, codec", 3, three, codec(table, "fettle/acme/munich/press-4")),
        json_case("UMH", 1, umh, codec(table, "umh/v1/acme/munich/_raw/temp")),
        json_case("burst of 2048 samples", 2048, burst, codec(table, "fettle/acme/munich/press-4/acc")),
    ]


def standard_cases(rng: random.Random, table: Table) -> list[Case]:
    packs = [
        [
            {"bn": "press-4:", "bt": NOW // 1_000_000 + i, "n": "s0", "u": "Cel", "v": rng.uniform(0, 9)},
            *({"n": f"s{k}", "t": k, "v": rng.uniform(0, 9)} for k in range(1, 10)),
        ]
        for i in range(MESSAGES)
    ]
    senml = [orjson.dumps(pack) for pack in packs]
    labels = {"bn": -2, "bt": -3, "n": 0, "u": 1, "v": 2, "t": 6}
    senml_cbor = [cbor2.dumps([{labels[k]: v for k, v in record.items()} for record in pack]) for pack in packs]
    lines = [
        "\n".join(
            f"motor,site=munich,machine=press-{m} temp={rng.uniform(0, 9)},rpm={m * 10}i,load={rng.uniform(0, 1)} {NOW * 1000 + i}"
            for m in range(5)
        ).encode()
        for i in range(MESSAGES)
    ]
    tasmota = [
        orjson.dumps(
            {"Time": "2026-11-21T00:00:00", "DS18B20": {"Id": "01", "Temperature": rng.uniform(0, 9)}, "TempUnit": "C"}
        )
        for _ in range(MESSAGES)
    ]
    zigbee = [
        orjson.dumps(
            {
                "temperature": rng.uniform(0, 9),
                "humidity": 40,
                "battery": 97,
                "linkquality": 120,
                "update": {"state": "idle"},
            }
        )
        for _ in range(MESSAGES)
    ]
    opcua = [
        orjson.dumps(
            {
                "MessageId": "1",
                "MessageType": "ua-data",
                "PublisherId": "plant",
                "Messages": [
                    {
                        "DataSetWriterId": 1,
                        "Timestamp": "2026-11-21T00:00:00Z",
                        "Payload": {f"s{k}": {"UaType": 11, "Value": rng.uniform(0, 9)} for k in range(5)},
                    }
                ],
            }
        )
        for _ in range(MESSAGES)
    ]
    ditto = [
        orjson.dumps(
            {
                "topic": "org/press-4/things/twin/events/modified",
                "path": "/features/motor/properties/temp",
                "value": rng.uniform(0, 9),
            }
        )
        for _ in range(MESSAGES)
    ]
    cbor = over(codec(table, "senml/munich/press-4"), senml_cbor)
    split = over(lambda payload: [line.split(b" ") for line in payload.split(b"\n")], lines)
    return [
        json_case("SenML JSON, 10 records", 10, senml, codec(table, "senml/munich/press-4")),
        Case("SenML CBOR, 10 records", 10, len(senml_cbor[0]), cbor, {"cbor2": over(cbor2.loads, senml_cbor)}),
        Case(
            "line protocol, 5 lines of 3", 15, len(lines[0]), over(codec(table, "line/munich"), lines), {"split": split}
        ),
        json_case("Tasmota", 1, tasmota, codec(table, "tele/plug/SENSOR")),
        json_case("Zigbee2MQTT", 4, zigbee, codec(table, "zigbee2mqtt/lamp")),
        json_case("OPC UA PubSub, 5 fields", 5, opcua, codec(table, "opcua/json/data/plant/line-1/press")),
        json_case("Ditto", 1, ditto, codec(table, "ditto/events")),
    ]


def sparkplug_cases(rng: random.Random, table: Table) -> list[Case]:
    """Two nodes' births, then data by alias: doubles, and a mixture with integers, booleans and quality."""
    cases = []
    mixture = (DataType.DOUBLE, DataType.INT32, DataType.BOOLEAN, DataType.INT16, DataType.FLOAT)
    for name, types in (("Sparkplug, 10 doubles", (DataType.DOUBLE,)), ("Sparkplug, 10 of mixed types", mixture)):
        kinds = [types[i % len(types)] for i in range(10)]

        def value(kind: DataType) -> float | int | bool:
            return rng.uniform(0, 9) if kind in {DataType.DOUBLE, DataType.FLOAT} else rng.random() < 0.5 if kind == DataType.BOOLEAN else rng.randrange(-9, 9)  # fmt: skip

        birth = encode(
            ts_ms=NOW // 1000, metrics=[OutMetric(f"m/{i}", k, value(k), i + 1) for i, k in enumerate(kinds)], seq=255
        )
        data = [
            [OutMetric(None, k, value(k), i + 1, NOW // 1000 + n) for i, k in enumerate(kinds)] for n in range(MESSAGES)
        ]
        payloads = [encode(ts_ms=NOW // 1000 + n, metrics=metrics, seq=n % 256) for n, metrics in enumerate(data)]
        route = table.route("spBv1.0/G/NDATA/E")
        assert route is not None
        host, context = Host(), route.context
        host.receive(context, "spBv1.0/G/NBIRTH/E", birth, NOW)
        decode_loop = over(lambda p, h=host, c=context: h.receive(c, "spBv1.0/G/NDATA/E", p, NOW), payloads)  # type: ignore[misc]
        parse = over(Payload.FromString, payloads)
        cases.append(Case(name, 10, len(payloads[0]), decode_loop, {"protobuf": parse}))

        def encode_loop(sets: list[list[OutMetric]] = data) -> None:
            for n, metrics in enumerate(sets):
                encode(ts_ms=NOW // 1000, metrics=metrics, seq=n % 256)

        cases.append(Case(f"{name}, encode", 10, len(payloads[0]), encode_loop, {"protobuf": parse}))
    return cases


def raw_case(rng: random.Random) -> Case:
    text = '[[rule]]\ntopic = "raw/{machine}"\nformat = "waveform"\nsite = "s"\nraw = { dtype = "<i2", fs_hz = 25600, scale = 0.001 }'
    payloads = [rng.randbytes(4096) for _ in range(MESSAGES)]
    table = Table(parse_rules(text, file="benchmark")[0], tenant="t")
    return Case(
        "raw waveform of 2048 samples",
        2048,
        4096,
        over(codec(table, "raw/press-4"), payloads),
        {"copy": over(bytearray, payloads)},
    )


def cpu_us(loop: Loop, seconds: float) -> float:
    """Return CPU microseconds per message; the loop runs for about `seconds`."""
    loops = 0
    start = time.process_time()
    while (spent := time.process_time() - start) < seconds:
        loop()
        loops += 1
    return spent / (loops * MESSAGES) * 1e6


def measure(case: Case, *, rounds: int, seconds: float) -> dict[str, float]:
    """Measure subject and baselines alternately; return the medians."""
    loops = {"subject": case.loop, **case.baselines}
    for loop in loops.values():
        loop()  # caches fill
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            taken[name].append(cpu_us(loop, seconds))
    return {name: statistics.median(times) for name, times in taken.items()}


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="benchmarks decode", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds per format; the median counts")
    parser.add_argument("--seconds", type=float, default=0.1, help="CPU seconds per loop and round")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    rng = random.Random(arguments.seed)
    table = load_table(tenant="default")
    cases = [*plain_cases(rng, table), *standard_cases(rng, table), *sparkplug_cases(rng, table), raw_case(rng)]
    console = Console()
    packages = {name: version(name) for name in ("orjson", "protobuf", "cbor2", "numpy")}
    listed = ", ".join(f"{name} {number}" for name, number in packages.items())
    console.print(
        f"Decode benchmark: CPU time of one thread, {arguments.rounds} alternating rounds of {arguments.seconds} s, median; "
        f"seed {arguments.seed}; Python {platform.python_version()}, {listed}"
    )
    grid = Grid("format", "bytes", "µs / message", "µs / reading", "readings / s", "baselines, µs / message", "ratio")
    results: dict[str, dict[str, float]] = {}
    for case in track(cases, description="formats", console=console, disable=not console.is_terminal):
        got = measure(case, rounds=arguments.rounds, seconds=arguments.seconds)
        subject = got.pop("subject")
        cheapest = min(got.values())
        results[case.name] = {
            "us_per_message": round(subject, 3),
            "us_per_reading": round(subject / case.readings, 4),
            "readings_per_s": round(case.readings / subject * 1e6),
            "ratio_to_cheapest_baseline": round(subject / cheapest, 2),
            **{f"baseline_{name}_us": round(us, 3) for name, us in got.items()},
        }
        grid.add_row(
            case.name,
            str(case.size),
            f"{subject:.2f}",
            f"{subject / case.readings:.3f}",
            f"{case.readings / subject * 1e6:,.0f}",
            ", ".join(f"{name} {us:.2f}" for name, us in got.items()),
            f"{subject / cheapest:.2f}",
        )
    console.print(grid)
    slowest = min(row["readings_per_s"] for name, row in results.items() if name.startswith("Sparkplug"))
    console.print(f"Sparkplug, slowest of decode and encode: {slowest:,.0f} metrics/s; the goal is 200,000")
    return {
        "benchmark": "decode",
        "seed": arguments.seed,
        "versions": packages,
        "goal_sparkplug_met": slowest >= 200_000,
        "formats": results,
    }
