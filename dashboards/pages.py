"""The pages themselves. The board reads its queries from here too, so that the two surfaces cannot differ."""

from dashboards import words
from dashboards.palette import colour
from dashboards.service_page import SERVICE
from dashboards.spec import Annotation, Column, Grid, Mapping, Page, Panel, Threshold, Variable
from fettle.words import Words

_HEALTH = tuple(Mapping(value, text, colour(value)) for value, text in words.HEALTH.items())
_SEVERITY = tuple(Mapping(value, text, colour(value)) for value, text in words.SEVERITY.items())
_STATE = tuple(Mapping(value, text, "text") for value, text in words.STATE.items())
_FAMILY = tuple(Mapping(value or "reported", text, "text") for value, text in words.FAULT_FAMILY.items())

TRACE_POINTS = 1200
"""Most points a trace is cut into: about one a pixel."""

_TRACE = """
SELECT at AS "time", name AS metric, mean AS value
FROM report.trace(%(machine)s, $__timeFrom()::timestamptz, $__timeTo()::timestamptz, 1200)
WHERE kind = '{kind}'
ORDER BY at, name
"""

_TICKET_REGIONS = """
SELECT t.occurred_at AS "time", coalesce(t.closed_at, least(now(), $__timeTo()::timestamptz)) AS timeend,
    t.number || ' ' || t.fault_description AS text, t.fault_family || ',' || t.severity AS tags
FROM report.ticket AS t
WHERE t.machine_id = %(machine)s AND t.severity = '{severity}'
  AND t.occurred_at < $__timeTo()::timestamptz AND coalesce(t.closed_at, 'infinity') > $__timeFrom()::timestamptz
ORDER BY t.occurred_at
"""

_HOURS = "suffix:h"


def _trace(number: int, key: str, kind: str, title: Words, unit: str, y: int) -> Panel:
    return Panel(
        id=number,
        key=key,
        title=title,
        description=Words(
            "Mean of each sensor over steps that fit the screen. Shaded: from the onset of a fault to the closing of its ticket.",
            "各传感器按屏幕步长取平均值。阴影：自故障起始至工单关闭。",
        ),
        viz="timeseries",
        sql=_TRACE.format(kind=kind),
        unit=unit,
        grid=Grid(0, y, 16, 8),
        thresholds=(Threshold(None, "text"),),
        may_be_empty=True,
        no_value=Words(
            "This machine has no such sensor, or it sent nothing in this range", "该设备无此传感器，或该时段无数据"
        ),
        colour=kind,
    )


PLANT = Page(
    uid="fettle-fleet",
    title=Words("Fleet health", "机群健康"),
    description=Words(
        "Which machine needs someone, why, and who is on the way.",
        "哪台设备需要处理、原因何在、谁已出发。",
    ),
    variables=(
        Variable(
            "machine",
            Words("Machine", "设备"),
            "integer",
            "SELECT site || ' / ' || number || ' ' || name AS __text, machine_id AS __value FROM report.machine ORDER BY site, number",
        ),
    ),
    panels=(
        Panel(
            id=1,
            key="health",
            title=Words("Machines by health", "设备健康分布"),
            description=Words(
                "By the worst open ticket of each machine. Target: none to act on now.",
                "按每台设备最严重的未关闭工单统计。目标：无“立即处理”。",
            ),
            viz="stat",
            sql="""
SELECT count(*) FILTER (WHERE health = 'well') AS well, count(*) FILTER (WHERE health = 'low') AS low,
    count(*) FILTER (WHERE health = 'medium') AS medium, count(*) FILTER (WHERE health = 'high') AS high
FROM report.fleet_health
""",
            grid=Grid(0, 0, 10, 4),
            unit="none",
            columns=tuple(
                Column(value, words.HEALTH[value], colour=value) for value in ("well", "low", "medium", "high")
            ),
            thresholds=(Threshold(None, "text"),),
            is_steady=True,
        ),
        Panel(
            id=2,
            key="open",
            title=Words("Open tickets", "未关闭工单"),
            description=Words(
                "Open now, and of these without an engineer. Target for the second: 0.",
                "当前未关闭工单，以及其中未派工的数量。后者目标：0。",
            ),
            viz="stat",
            sql="""
SELECT count(*) AS open, count(*) FILTER (WHERE engineer_id IS NULL) AS unassigned
FROM report.ticket
WHERE state <> 'closed'
""",
            grid=Grid(10, 0, 6, 4),
            unit="none",
            columns=(
                Column("open", Words("Open", "未关闭")),
                Column("unassigned", Words("Without engineer", "未派工"), colour="medium"),
            ),
            thresholds=(Threshold(None, "text"),),
            is_steady=True,
        ),
        Panel(
            id=3,
            key="freshness",
            title=Words("Newest reading", "最新读数"),
            description=Words(
                "Age of the newest reading, in seconds, and sensors silent for 10 minutes or more. Target: below 60 s, none silent.",
                "最新读数距今秒数，以及静默 10 分钟以上的传感器数。目标：60 秒以内，无静默。",
            ),
            viz="stat",
            sql="""
SELECT extract(epoch FROM now() - max(at))::float8 AS age_s,
    count(*) FILTER (WHERE at IS NULL OR at < now() - interval '10 minutes') AS silent
FROM report.sensor_latest
""",
            grid=Grid(16, 0, 8, 4),
            unit="none",
            columns=(
                Column("age_s", Words("Age", "距今"), unit="s"),
                Column("silent", Words("Silent sensors", "静默传感器"), colour="silent"),
            ),
            thresholds=(Threshold(None, "text"),),
            is_steady=True,
        ),
        _trace(4, "vibration", "vibration_velocity", Words("Vibration", "振动"), "suffix:mm/s", 4),
        _trace(5, "temperature", "temperature", Words("Temperature", "温度"), "celsius", 12),
        _trace(6, "current", "current", Words("Motor current", "电机电流"), "amp", 20),
        Panel(
            id=7,
            key="fleet",
            title=Words("Machines", "设备"),
            description=Words("Every machine with its health; worst first.", "全部设备及其健康状态，最差者在前。"),
            viz="table",
            sql="""
SELECT f.health, f.number, f.name, f.site, f.line, f.open_tickets, f.machine_id
FROM report.fleet_health AS f
ORDER BY array_position(ARRAY['high', 'medium', 'low', 'well'], f.health), f.site, f.line, f.number
""",
            grid=Grid(16, 4, 8, 12),
            columns=(
                Column("health", Words("Health", "健康"), width=90, mappings=_HEALTH),
                Column("number", Words("Number", "编号"), width=90, links_to="machine"),
                Column("name", Words("Machine", "设备")),
                Column("site", Words("Site", "工厂"), width=90),
                Column("line", Words("Line", "产线"), width=70),
                Column("open_tickets", Words("Open", "未关闭"), width=70),
                Column("machine_id", Words("Id", "标识"), is_hidden=True),
            ),
            thresholds=(Threshold(None, "text"),),
            is_steady=True,
        ),
        Panel(
            id=8,
            key="response",
            title=Words("Response", "响应"),
            description=Words(
                "Hours from filing to the first dispatch (median, 90th percentile) and to closing (median), of tickets filed in the range. Target: median dispatch below 0.5 h.",
                "时段内提交的工单：从提交到首次派工（中位数、90 分位）及到关闭（中位数）的小时数。目标：派工中位数 0.5 小时以内。",
            ),
            viz="stat",
            sql="""
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY dispatch_h) AS dispatch_p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY dispatch_h) AS dispatch_p90,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY close_h) AS closed_p50
FROM report.ticket_times
WHERE created_at >= $__timeFrom()::timestamptz AND created_at < $__timeTo()::timestamptz
""",
            grid=Grid(16, 16, 8, 4),
            unit=_HOURS,
            columns=(
                Column("dispatch_p50", Words("Dispatch, median", "派工中位数")),
                Column("dispatch_p90", Words("Dispatch, 90 %", "派工 90 分位")),
                Column("closed_p50", Words("Closing, median", "关闭中位数")),
            ),
            thresholds=(Threshold(None, "text"),),
            no_value=Words("None in this range", "该时段无"),
        ),
        Panel(
            id=9,
            key="families",
            title=Words("Tickets by fault", "按故障类型统计"),
            description=Words(
                "Tickets that were open at some time in the range, by fault family.",
                "时段内曾处于未关闭状态的工单，按故障类型统计。",
            ),
            viz="barchart",
            sql="""
SELECT CASE WHEN fault_family = '' THEN 'reported' ELSE fault_family END AS family, count(*) AS tickets
FROM report.ticket
WHERE created_at < $__timeTo()::timestamptz AND coalesce(closed_at, 'infinity') > $__timeFrom()::timestamptz
GROUP BY 1
ORDER BY 2 DESC, 1
LIMIT 12
""",
            grid=Grid(16, 20, 8, 8),
            unit="none",
            columns=(
                Column("family", Words("Fault", "故障"), mappings=_FAMILY),
                Column("tickets", Words("Tickets", "工单数")),
            ),
            thresholds=(Threshold(None, "text"),),
            may_be_empty=True,
            no_value=Words("No ticket in this range", "该时段无工单"),
            colour="low",
        ),
        Panel(
            id=10,
            key="tickets",
            title=Words("Open tickets, most severe first", "未关闭工单（严重者在前）"),
            description=Words(
                "Severity, state and engineer of every open ticket; the number leads to the ticket.",
                "每张未关闭工单的严重度、状态与工程师；点击编号查看工单。",
            ),
            viz="table",
            sql="""
SELECT t.severity, t.number, t.state, t.machine, t.equipment_number,
    CASE WHEN t.fault_family = '' THEN 'reported' ELSE t.fault_family END AS fault_family, t.fault_description,
    t.fault_description_zh, t.engineer, t.assignment_status, t.priority, t.type, t.dispatch_hold, t.occurred_at, t.created_at, t.machine_id, t.ticket_id
FROM report.ticket AS t
WHERE t.state <> 'closed'
ORDER BY array_position(ARRAY['high', 'medium', 'low'], t.severity), t.created_at DESC
""",
            grid=Grid(0, 28, 24, 9),
            columns=(
                Column("severity", Words("Severity", "严重度"), width=90, mappings=_SEVERITY),
                Column("number", Words("Ticket", "工单"), width=150, links_to="ticket"),
                Column("state", Words("State", "状态"), width=160, mappings=_STATE),
                Column("machine", Words("Machine", "设备"), width=180),
                Column("equipment_number", Words("Number", "编号"), width=100),
                Column("fault_family", Words("Fault", "故障"), width=170, mappings=_FAMILY),
                Column("fault_description", Words("Description", "描述")),
                Column("fault_description_zh", Words("Description in Chinese", "中文描述"), is_hidden=True),
                Column("dispatch_hold", Words("Hold", "暂缓派工"), is_hidden=True),
                Column("engineer", Words("Engineer", "工程师"), width=130),
                Column("assignment_status", Words("Assignment", "派工"), is_hidden=True),
                Column("priority", Words("Priority", "优先级"), is_hidden=True),
                Column("type", Words("Type", "类型"), is_hidden=True),
                Column("occurred_at", Words("Since", "起始"), unit="dateTimeFromNow", width=140),
                Column("created_at", Words("Filed", "提交"), unit="dateTimeAsLocal", width=170),
                Column("machine_id", Words("Id", "标识"), is_hidden=True),
                Column("ticket_id", Words("Id", "标识"), is_hidden=True),
            ),
            thresholds=(Threshold(None, "text"),),
            may_be_empty=True,
            no_value=Words("No open ticket", "没有未关闭工单"),
            is_steady=True,
        ),
    ),
    annotations=tuple(
        Annotation(
            Words(f"Tickets, {words.SEVERITY[severity].en.lower()}", f"工单（{words.SEVERITY[severity].zh}）"),
            severity,
            _TICKET_REGIONS.format(severity=severity),
        )
        for severity in ("high", "medium", "low")
    ),
)

PAGES: tuple[Page, ...] = (PLANT, SERVICE)
