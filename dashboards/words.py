"""The product's words in English and Chinese, by the value that the database carries."""

from fettle.words import Language, Words

HEALTH = {
    "well": Words("Well", "正常"),
    "low": Words("Watch", "关注"),
    "medium": Words("Plan", "安排"),
    "high": Words("Act now", "立即处理"),
    "silent": Words("Silent", "无数据"),
}
SEVERITY = {
    "low": Words("Low", "低"),
    "medium": Words("Medium", "中"),
    "high": Words("High", "高"),
}
STATE = {
    "submitted": Words("Submitted", "已提交"),
    "pending_confirmation": Words("Pending confirmation", "待确认"),
    "dispatched": Words("Dispatched", "已派发"),
    "in_progress": Words("In progress", "处理中"),
    "pending_acceptance": Words("Pending acceptance", "待验收"),
    "closed": Words("Closed", "已关闭"),
}
TYPE = {
    "repair": Words("Repair", "设备报修"),
    "maintenance": Words("Maintenance", "定期保养"),
    "emergency_stop": Words("Emergency stop", "紧急停机"),
    "part_request": Words("Part request", "配件申领"),
    "potential_fault": Words("Potential fault", "潜在故障"),
    "inspection": Words("Inspection", "巡检"),
}
PRIORITY = {
    "low": Words("Low", "低"),
    "normal": Words("Normal", "普通"),
    "high": Words("High", "高"),
    "emergency": Words("Emergency", "紧急"),
}
FAULT_FAMILY = {
    "": Words("Reported fault", "报修故障"),
    "bearing": Words("Bearing", "轴承"),
    "imbalance": Words("Imbalance or looseness", "不平衡或松动"),
    "overheating": Words("Overheating", "过热"),
    "overload": Words("Overload", "过载"),
    "no_load": Words("No load", "空载"),
    "electrical_unbalance": Words("Electrical unbalance", "电气不平衡"),
    "sensor_fault": Words("Sensor fault", "传感器故障"),
    "unknown_deviation": Words("Unknown deviation", "未知偏差"),
}
KIND = {
    "vibration_velocity": Words("Vibration", "振动"),
    "vibration_acceleration": Words("Vibration, acceleration", "振动加速度"),
    "temperature": Words("Temperature", "温度"),
    "current": Words("Current", "电流"),
    "voltage": Words("Voltage", "电压"),
    "power": Words("Power", "功率"),
    "pressure": Words("Pressure", "压力"),
    "flow": Words("Flow", "流量"),
    "speed": Words("Speed", "转速"),
    "humidity": Words("Humidity", "湿度"),
    "state": Words("State", "状态"),
    "count": Words("Count", "计数"),
    "other": Words("Other", "其他"),
}
ASSIGNMENT = {
    "offered": Words("Offered", "已推送"),
    "accepted": Words("Accepted", "已接单"),
    "started": Words("At work", "作业中"),
    "rejected": Words("Declined", "已拒绝"),
    "expired": Words("Not answered", "超时未应答"),
    "withdrawn": Words("Withdrawn", "已撤回"),
    "finished": Words("Finished", "已完成"),
}
HOLD = {
    "nobody_eligible": Words("Nobody is eligible", "无合格工程师"),
    "offers_failed": Words("All who were asked declined", "被推送者均未接单"),
    "taken_back": Words("Taken back by the supervisor", "主管已撤回"),
}
CHANNEL = {
    "phone": Words("Phone", "电话"),
    "mail": Words("Mail", "邮件"),
    "chat": Words("Chat", "在线沟通"),
    "board": Words("Board", "看板"),
    "api": Words("API", "接口"),
    "detector": Words("Detection", "自动检测"),
}
RESOLUTION = {
    "accepted": Words("Accepted", "已验收"),
    "auto_accepted": Words("Accepted after the time limit", "超时自动验收"),
    "cancelled": Words("Cancelled", "已取消"),
    "rejected": Words("Rejected", "已驳回"),
    "duplicate": Words("Duplicate", "重复工单"),
    "false_alarm": Words("False alarm", "误报"),
}
EVENT = {
    "filed": Words("Filed", "提交"),
    "evidence": Words("More evidence", "补充证据"),
    "note": Words("Note", "备注"),
    "assignment": Words("Assignment", "派工"),
    "transition": Words("Moved on", "流转"),
}
ACTOR = {
    "fettle-detect": Words("Detection", "自动检测"),
    "fettle-dispatch": Words("Dispatch", "自动派工"),
    "fettle-work": Words("Fettle", "系统"),
}
DETECTOR = {
    "residual": Words("the load model", "负载模型"),
    "siblings": Words("comparison of sibling sensors", "同组传感器对比"),
    "excess": Words("the long-term band", "长期范围"),
    "limit": Words("limits", "限值"),
    "deviation": Words("the usual level", "常态水平"),
    "stuck": Words("sensor checks: stuck", "传感器检查：停滞"),
    "invalid": Words("sensor checks: not believable", "传感器检查：不可信"),
    "silent": Words("sensor checks: silent", "传感器检查：无数据"),
    "spike": Words("sensor checks: spikes", "传感器检查：尖峰"),
    "offset": Words("sensor checks: offset", "传感器检查：偏移"),
    "unit": Words("sensor checks: unit", "传感器检查：单位"),
    "noise": Words("sensor checks: noise", "传感器检查：噪声"),
    "drift": Words("sensor checks: drift", "传感器检查：漂移"),
    "skew": Words("sensor checks: clock", "传感器检查：时钟"),
    "change": Words("vibration zones: change", "振动分区：变化"),
    "rate": Words("limits on rates of change", "变化速率限值"),
    "zone": Words("vibration zones", "振动分区"),
}
MACHINE_CLASS = {
    "pump": Words("Pump", "泵"),
    "fan": Words("Fan", "风机"),
    "motor": Words("Motor", "电机"),
    "compressor": Words("Compressor", "压缩机"),
    "gearbox": Words("Gearbox", "齿轮箱"),
    "conveyor": Words("Conveyor", "输送机"),
    "spindle": Words("Spindle", "主轴"),
    "press": Words("Press", "压机"),
    "mixer": Words("Mixer", "搅拌机"),
}
ACTION = {
    "accept": Words("Accept the job", "接单"),
    "refuse": Words("Decline", "拒绝"),
    "check_in": Words("Check in at the machine", "到场签到"),
    "hand_in": Words("Hand in the result", "提交结果"),
    "accept_result": Words("Accept the result", "验收通过"),
    "send_back": Words("Send back", "退回返工"),
    "confirm": Words("Confirm", "确认工单"),
    "dispatch": Words("Dispatch now", "立即派工"),
    "take_back": Words("Take the offer back", "收回派单"),
    "identify": Words("Say which machine it is", "确认设备"),
    "close": Words("Close the ticket", "关闭工单"),
}
FIELD = {
    "reason": Words("Reason", "原因"),
    "result": Words("What was done", "处理结果"),
    "hours": Words("Working hours", "工时"),
    "cause": Words("Cause, if known", "故障原因（如已知）"),
    "satisfaction": Words("Satisfaction, 5 is best", "满意度（5 为最好）"),
    "resolution": Words("Why it is closed", "关闭原因"),
    "equipment_number": Words("Equipment number", "设备编号"),
    "fault_description": Words("What is wrong, and since when", "故障现象及开始时间"),
    "type": Words("What it is", "工单类型"),
    "priority": Words("Priority", "优先级"),
    "contact_phone": Words("Contact phone", "联系电话"),
    "region": Words("Region", "所属区域"),
}
PAGE = {
    "tagline": Words(
        "Which machine needs someone, why, and who is on the way.", "哪台设备需要处理、原因何在、谁已出发。"
    ),
    "login": Words("Login name", "登录名"),
    "password": Words("Password", "密码"),
    "log_in": Words("Log in", "登录"),
    "log_out": Words("Log out", "退出"),
    "no_connection": Words("No connection to the server. Try again.", "无法连接服务器，请重试。"),
    "other_language": Words("中文", "English"),
    "theme": Words("Appearance", "外观"),
    "theme.auto": Words("Auto", "自动"),
    "theme.light": Words("Light", "浅色"),
    "theme.dark": Words("Dark", "深色"),
    "skip": Words("Go to the traces", "跳到曲线"),
    "summary": Words("Machines by health", "设备健康分布"),
    "machines": Words("Machines", "设备"),
    "traces": Words("Traces", "曲线"),
    "tickets": Words("Tickets", "工单"),
    "open_tickets": Words("Open tickets", "未关闭工单"),
    "tickets_of_machine": Words("Tickets of this machine on the time axis", "该设备工单（时间轴）"),
    "only_this": Words("This machine", "仅本设备"),
    "find": Words("Find a machine  /", "查找设备  /"),
    "range": Words("Time range", "时间范围"),
    "range.15m": Words("15 min", "15 分"),
    "range.1h": Words("1 h", "1 小时"),
    "range.6h": Words("6 h", "6 小时"),
    "range.24h": Words("24 h", "24 小时"),
    "range.7d": Words("7 d", "7 天"),
    "range.30d": Words("30 d", "30 天"),
    "back_to": Words("← Back to {range}", "← 返回 {range}"),
    "step": Words("one point: {time}", "每点 {time}"),
    "seconds": Words("{n} s", "{n} 秒"),
    "minutes": Words("{n} min", "{n} 分钟"),
    "hours": Words("{n} h", "{n} 小时"),
    "days": Words("{n} d", "{n} 天"),
    "ago": Words("{time} ago", "{time}前"),
    "live": Words("Live", "实时"),
    "reconnecting": Words("Reconnecting…", "正在重连…"),
    "no_data": Words("no data", "无数据"),
    "no_data_range": Words("no data in this range", "该时段无数据"),
    "never_data": Words("This machine has not sent anything yet", "该设备尚未发送数据"),
    "last_data": Words("Last data: {time}", "最后数据：{time}"),
    "no_sensors": Words("This machine has no sensors yet.", "该设备尚无传感器。"),
    "no_machines": Words(
        "No machines yet. They appear with their first reading.", "尚无设备，收到首条读数后自动出现。"
    ),
    "nothing_found": Words("No machine matches.", "没有匹配的设备。"),
    "no_open_tickets": Words("No open tickets.", "没有未关闭的工单。"),
    "unknown_machine": Words("Unknown machine {number}", "未知设备 {number}"),
    "no_engineer": Words("No engineer yet", "尚未派工"),
    "no_engineer_yet": Words("Nobody has been asked yet.", "尚未推送给工程师。"),
    "n_open": Words("{n} open tickets", "{n} 张未关闭工单"),
    "limit": Words("limit", "限值"),
    "expected_range": Words("expected range", "预期范围"),
    "attention": Words("Needs attention", "需要关注"),
    "chart_label": Words(
        "{title} in {unit}, from {low} to {high}. Left and right arrows move the crosshair, plus looks closer, minus goes back.",
        "{title}（{unit}），{low} 至 {high}。左右方向键移动光标，加号放大，减号返回。",
    ),
    "close_panel": Words("Close the ticket", "关闭面板"),
    "severity": Words("Severity", "严重度"),
    "priority": Words("Priority", "优先级"),
    "since": Words("Since", "起始"),
    "filed": Words("Filed", "提交"),
    "closed": Words("Closed", "关闭"),
    "resolution": Words("Result", "结果"),
    "description": Words("Description", "描述"),
    "evidence": Words("Evidence", "证据"),
    "seen_at": Words("as of {time}", "截至 {time}"),
    "expected": Words("expected {value}", "预期 {value}"),
    "share_of_score": Words("{n} % of the score", "占得分 {n}%"),
    "check_first": Words("Check first", "优先检查"),
    "found_by": Words("Found by {detector} ({version})", "由{detector}发现（{version}）"),
    "revisions": Words("{n} revisions", "{n} 次更新"),
    "show_window": Words("Show {from} to {to}", "查看 {from} 至 {to}"),
    "engineer": Words("Engineer", "工程师"),
    "answer_until": Words("to answer by {time}", "请于 {time} 前应答"),
    "actions": Words("What you can do", "可执行操作"),
    "file": Words("File a ticket", "提交报修"),
    "file_hint": Words("The equipment number is on the name plate.", "设备编号见设备铭牌。"),
    "back": Words("Back", "返回"),
    "done": Words("Done.", "已完成。"),
    "life": Words("Life of the ticket", "工单流程"),
}


def table(language: Language) -> dict[str, str]:
    """Return every text the pages need, by key: `health.well`, `state.closed`, `log_in`."""
    groups = {
        "health": HEALTH, "severity": SEVERITY, "state": STATE, "type": TYPE, "priority": PRIORITY, "family": FAULT_FAMILY,
        "kind": KIND, "assignment": ASSIGNMENT, "channel": CHANNEL, "resolution": RESOLUTION, "hold": HOLD, "action": ACTION, "field": FIELD, "event": EVENT, "actor": ACTOR,
        "detector": DETECTOR, "class": MACHINE_CLASS,
    }  # fmt: skip
    named = {f"{group}.{value}": words for group, entries in groups.items() for value, words in entries.items()}
    return {key: words.zh if language == "zh" else words.en for key, words in (named | PAGE).items()}
