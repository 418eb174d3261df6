"""Finds machines that leave their healthy behaviour, and sensors that cannot be trusted.

Owns detectors, their calibration, the alarm policy and the findings that come out of it. Must not know tickets,
engineers, MQTT or how readings are stored: it is given arrays of readings and hands out findings.

    committed batch -> ticks -> validity, limits -> steps -> modes, residuals -> score -> policy -> finding
"""
