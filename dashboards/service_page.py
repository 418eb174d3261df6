"""The service manager's page: how long people wait, what waits longest, who is busy, and whether detection is worth it."""

from dashboards import words
from dashboards.spec import Column, Grid, Mapping, Page, Panel, Threshold
from fettle.words import Words

_PLAIN = (Threshold(None, "text"),)
_HOURS = "suffix:h"
_FAMILY = tuple(Mapping(value or "reported", text, "text") for value, text in words.FAULT_FAMILY.items())
_STATE = tuple(Mapping(value, text, "text") for value, text in words.STATE.items())
_CHANNEL = tuple(Mapping(value, text, "text") for value, text in words.CHANNEL.items())
_SEVERITY = tuple(Mapping(value, text, value) for value, text in words.SEVERITY.items())
_PRIORITY = tuple(Mapping(value, text, "text") for value, text in words.PRIORITY.items())

SERVICE = Page(
    uid="fettle-service",
    title=Words("Response and work", "响应与工单"),
    description=Words(
        "How long customers wait, what waits longest, who is busy, and whether findings were worth it.",
        "客户等待时长、积压最久的工单、工程师负荷，以及检测是否有效。",
    ),
    variables=(),
    range_from="now-30d",
    refresh="5m",
    panels=(
        Panel(
            id=1,
            key="response",
            title=Words("Response", "响应"),
            description=Words(
                "Hours from filing, of tickets filed in the range: to dispatch and to an engineer's acceptance (median and 90th percentile). Target: dispatch below 0.5 h.",
                "时段内提交的工单，从提交到派工及到工程师接单的小时数（中位数与 90 分位）。目标：派工 0.5 小时以内。",
            ),
            viz="stat",
            sql="""
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY dispatch_h) AS dispatch_p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY dispatch_h) AS dispatch_p90,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY accept_h) AS accept_p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY accept_h) AS accept_p90
FROM report.ticket_times
WHERE created_at >= $__timeFrom()::timestamptz AND created_at < $__timeTo()::timestamptz
""",
            grid=Grid(0, 0, 12, 4),
            unit=_HOURS,
            columns=(
                Column("dispatch_p50", Words("Dispatch, median", "派工中位数")),
                Column("dispatch_p90", Words("Dispatch, 90 %", "派工 90 分位")),
                Column("accept_p50", Words("Acceptance, median", "接单中位数")),
                Column("accept_p90", Words("Acceptance, 90 %", "接单 90 分位")),
            ),
            thresholds=_PLAIN,
            no_value=Words("None in this range", "该时段无"),
        ),
        Panel(
            id=2,
            key="resolution",
            title=Words("Resolution", "解决"),
            description=Words(
                "Hours from filing to the engineer's arrival, to the result, and to closing (medians), of tickets filed in the range. Target: closing below 24 h.",
                "时段内提交的工单，从提交到工程师到场、到提交结果、到关闭的小时数（中位数）。目标：24 小时内关闭。",
            ),
            viz="stat",
            sql="""
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY start_h) AS start_p50,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY result_h) AS result_p50,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY close_h) AS closed_p50
FROM report.ticket_times
WHERE created_at >= $__timeFrom()::timestamptz AND created_at < $__timeTo()::timestamptz
""",
            grid=Grid(12, 0, 12, 4),
            unit=_HOURS,
            columns=(
                Column("start_p50", Words("On site, median", "到场中位数")),
                Column("result_p50", Words("Result, median", "结果中位数")),
                Column("closed_p50", Words("Closing, median", "关闭中位数")),
            ),
            thresholds=_PLAIN,
            no_value=Words("None in this range", "该时段无"),
        ),
        Panel(
            id=3,
            key="flow",
            title=Words("Filed and closed per day", "每日提交与关闭"),
            description=Words(
                "Tickets filed and tickets closed, by day (UTC). Target: closed keeps up with filed.",
                "按日统计提交与关闭的工单（UTC）。目标：关闭数不低于提交数。",
            ),
            viz="timeseries",
            draws="bars",
            sql="""
SELECT day AS "time", what AS metric, count(*) AS value
FROM (
    SELECT date_bin('1 day', created_at, timestamptz '2000-01-03 00:00+00') AS day, 'filed' AS what
    FROM report.ticket
    WHERE $__timeFilter(created_at)
    UNION ALL
    SELECT date_bin('1 day', closed_at, timestamptz '2000-01-03 00:00+00'), 'closed'
    FROM report.ticket
    WHERE $__timeFilter(closed_at)
) AS moment
GROUP BY 1, 2
ORDER BY 1, 2
""",
            grid=Grid(0, 4, 12, 8),
            unit="none",
            thresholds=_PLAIN,
            may_be_empty=True,
            no_value=Words("No ticket in this range", "该时段无工单"),
            colour="vibration_velocity",
        ),
        Panel(
            id=4,
            key="backlog",
            title=Words("Open tickets by age", "未关闭工单按时长"),
            description=Words(
                "Open now, by time since filing. Target: none over 3 days.",
                "当前未关闭工单，按提交后时长统计。目标：无超过 3 天。",
            ),
            viz="barchart",
            sql="""
SELECT age, count(ticket_id) AS tickets
FROM (VALUES ('under 4 h', 0, 4), ('4 to 24 h', 4, 24), ('1 to 3 d', 24, 72), ('3 to 7 d', 72, 168), ('over 7 d', 168, 1000000)) AS band (age, low_h, high_h)
LEFT JOIN report.ticket AS t ON t.state <> 'closed'
    AND extract(epoch FROM now() - t.created_at) / 3600.0 >= band.low_h AND extract(epoch FROM now() - t.created_at) / 3600.0 < band.high_h
GROUP BY age, low_h
ORDER BY low_h
""",
            grid=Grid(12, 4, 6, 8),
            unit="none",
            columns=(
                Column(
                    "age",
                    Words("Age", "时长"),
                    mappings=(
                        Mapping("under 4 h", Words("under 4 h", "4 小时内"), "text"),
                        Mapping("4 to 24 h", Words("4 to 24 h", "4–24 小时"), "text"),
                        Mapping("1 to 3 d", Words("1 to 3 d", "1–3 天"), "text"),
                        Mapping("3 to 7 d", Words("3 to 7 d", "3–7 天"), "text"),
                        Mapping("over 7 d", Words("over 7 d", "7 天以上"), "text"),
                    ),
                ),
                Column("tickets", Words("Tickets", "工单数")),
            ),
            thresholds=_PLAIN,
            is_steady=True,
            colour="low",
        ),
        Panel(
            id=5,
            key="channels",
            title=Words("How tickets came in", "工单来源"),
            description=Words("Tickets filed in the range, by channel.", "时段内提交的工单，按来源统计。"),
            viz="barchart",
            sql="""
SELECT channel, count(*) AS tickets
FROM report.ticket
WHERE created_at >= $__timeFrom()::timestamptz AND created_at < $__timeTo()::timestamptz
GROUP BY channel
ORDER BY 2 DESC, 1
""",
            grid=Grid(18, 4, 6, 8),
            unit="none",
            columns=(
                Column("channel", Words("Channel", "来源"), mappings=_CHANNEL),
                Column("tickets", Words("Tickets", "工单数")),
            ),
            thresholds=_PLAIN,
            may_be_empty=True,
            no_value=Words("No ticket in this range", "该时段无工单"),
            colour="well",
        ),
        Panel(
            id=6,
            key="engineers",
            title=Words("Engineers", "工程师"),
            description=Words(
                "Jobs now and in the range; hours from offer to acceptance and from start to end (medians). Not a ranking: jobs differ.",
                "当前任务与时段内任务；从推送到接单、从开工到结束的小时数（中位数）。不作排名：任务难度不同。",
            ),
            viz="table",
            sql="""
SELECT e.name AS engineer, e.active_jobs, e.job_cap, count(w.ticket_id) FILTER (WHERE w.status = 'finished') AS finished,
    count(w.ticket_id) FILTER (WHERE w.status IN ('rejected', 'expired')) AS refused,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY w.accept_h) AS accept_h,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY w.work_h) AS work_h
FROM report.engineer AS e
LEFT JOIN report.work_done AS w ON w.engineer_id = e.engineer_id
    AND w.offered_at >= $__timeFrom()::timestamptz AND w.offered_at < $__timeTo()::timestamptz
GROUP BY e.engineer_id, e.name, e.active_jobs, e.job_cap
ORDER BY e.name
""",
            grid=Grid(0, 12, 14, 9),
            columns=(
                Column("engineer", Words("Engineer", "工程师")),
                Column("active_jobs", Words("Jobs now", "当前任务"), width=100),
                Column("job_cap", Words("Limit", "上限"), width=80),
                Column("finished", Words("Finished", "已完成"), width=90),
                Column("refused", Words("Refused or lapsed", "拒绝或超时"), width=130),
                Column("accept_h", Words("To acceptance", "接单用时"), unit=_HOURS, width=120),
                Column("work_h", Words("At work", "作业用时"), unit=_HOURS, width=100),
            ),
            thresholds=_PLAIN,
            may_be_empty=True,
            no_value=Words("No engineers yet", "尚无工程师"),
        ),
        Panel(
            id=7,
            key="worth",
            title=Words("Were findings worth it?", "检测是否有效"),
            description=Words(
                "Potential-fault tickets closed in the range: accepted after work, false alarms, and the share of the former. Target: above 70 %. Hours from the onset of the fault to the ticket (median).",
                "时段内关闭的潜在故障工单：经处理验收的、误报的，以及前者占比（目标 70 % 以上）；从故障起始到建单的小时数（中位数）。",
            ),
            viz="stat",
            sql="""
SELECT count(*) FILTER (WHERE resolution_code IN ('accepted', 'auto_accepted')) AS confirmed,
    count(*) FILTER (WHERE resolution_code = 'false_alarm') AS false_alarms,
    (count(*) FILTER (WHERE resolution_code IN ('accepted', 'auto_accepted')))::float8
        / nullif(count(*) FILTER (WHERE resolution_code IN ('accepted', 'auto_accepted', 'false_alarm')), 0) AS share,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY onset_to_ticket_h) AS lag_h
FROM report.ticket_times
WHERE type = 'potential_fault' AND closed_at >= $__timeFrom()::timestamptz AND closed_at < $__timeTo()::timestamptz
""",
            grid=Grid(14, 12, 10, 4),
            unit="none",
            columns=(
                Column("confirmed", Words("Worked on and accepted", "处理并验收"), colour="well"),
                Column("false_alarms", Words("False alarms", "误报"), colour="medium"),
                Column("share", Words("Share confirmed", "有效占比"), unit="percentunit"),
                Column("lag_h", Words("Onset to ticket", "起始到建单"), unit=_HOURS),
            ),
            thresholds=_PLAIN,
            no_value=Words("None closed", "无已关闭"),
        ),
        Panel(
            id=8,
            key="families",
            title=Words("Closed by fault", "已关闭工单按故障"),
            description=Words("Tickets closed in the range, by fault family.", "时段内关闭的工单，按故障类型统计。"),
            viz="barchart",
            sql="""
SELECT CASE WHEN fault_family = '' THEN 'reported' ELSE fault_family END AS family, count(*) AS tickets
FROM report.ticket_times
WHERE closed_at >= $__timeFrom()::timestamptz AND closed_at < $__timeTo()::timestamptz
GROUP BY 1
ORDER BY 2 DESC, 1
LIMIT 12
""",
            grid=Grid(14, 16, 10, 5),
            unit="none",
            columns=(
                Column("family", Words("Fault", "故障"), mappings=_FAMILY),
                Column("tickets", Words("Tickets", "工单数")),
            ),
            thresholds=_PLAIN,
            may_be_empty=True,
            no_value=Words("None closed in this range", "该时段无关闭工单"),
            colour="low",
        ),
        Panel(
            id=9,
            key="waiting",
            title=Words("Waiting longest", "等待最久"),
            description=Words(
                "Open tickets nobody has started, the oldest first; the number leads to the ticket. Target: none over 24 h.",
                "尚未开工的未关闭工单，时间最久者在前；点击编号查看工单。目标：无超过 24 小时。",
            ),
            viz="table",
            sql="""
SELECT t.number, t.severity, t.priority, t.state, t.machine, t.region, t.engineer,
    (extract(epoch FROM now() - t.created_at) / 3600.0)::float8 AS waiting_h
FROM report.ticket AS t
WHERE t.state IN ('submitted', 'pending_confirmation', 'dispatched')
ORDER BY t.created_at
LIMIT 25
""",
            grid=Grid(0, 21, 24, 8),
            columns=(
                Column("number", Words("Ticket", "工单"), width=160, links_to="ticket"),
                Column("severity", Words("Severity", "严重度"), width=100, mappings=_SEVERITY),
                Column("priority", Words("Priority", "优先级"), width=100, mappings=_PRIORITY),
                Column("state", Words("State", "状态"), width=180, mappings=_STATE),
                Column("machine", Words("Machine", "设备")),
                Column("region", Words("Region", "区域"), width=140),
                Column("engineer", Words("Engineer", "工程师"), width=160),
                Column("waiting_h", Words("Waiting", "等待"), unit=_HOURS, width=110),
            ),
            thresholds=_PLAIN,
            may_be_empty=True,
            no_value=Words("Nothing waits", "无等待工单"),
            is_steady=True,
        ),
    ),
)
